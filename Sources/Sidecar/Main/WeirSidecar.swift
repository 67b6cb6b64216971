import Glibc
import SidecarWiring

@main
struct WeirSidecar {
    static func main() {
        exit(Program.run(arguments: Array(CommandLine.arguments.dropFirst())))
    }
}
