import SidecarCore

enum Wiring {
    static func run(_ options: SidecarOptions, log: Log) -> ExitCode { .success }
}
