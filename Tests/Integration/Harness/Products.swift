import Foundation

/// Where the programs under test are.
enum Products {
    /// The folder of the test bundle, where the build puts its programs, too; `WEIR_BIN` names
    /// another, for example that of a release build.
    static let folder: String = {
        if let folder = ProcessInfo.processInfo.environment["WEIR_BIN"] { return folder }
        let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
        return URL(fileURLWithPath: bundle ?? ".").deletingLastPathComponent().path
    }()

    static func path(_ product: String) -> String { folder + "/" + product }

    static func exists(_ product: String) -> Bool {
        FileManager.default.isExecutableFile(atPath: path(product))
    }

    /// The root of the checkout: this file is Tests/Integration/Harness/Products.swift.
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
}

/// Programs of the system.
enum Tools {
    static func path(_ name: String) throws -> String {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        for folder in folders + ["/usr/bin", "/usr/sbin"] {
            let path = "\(folder)/\(name)"
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        throw TestProcess.Failed(
            description: "\(name) is not installed; scripts/test --yes installs what is missing")
    }

    /// Runs a short command to its end and gives what it wrote.
    static func run(
        _ executable: String, _ arguments: [String], environment: [String: String] = [:],
        within bound: Duration = .seconds(30)
    ) async throws -> (status: Int32, output: String) {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let process = try TestProcess(
            "command", executable: executable, arguments: arguments, environment: environment,
            folder: folder)
        do {
            let status = try await process.exited(within: bound)
            return (status, process.log)
        } catch {
            await process.dispose()
            throw TestProcess.Failed(description: "\(executable): \(error)\n\(process.log)")
        }
    }
}
