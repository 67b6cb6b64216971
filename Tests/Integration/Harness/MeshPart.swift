import Synchronization

/// One program of a mesh that can be killed and started again with the same arguments.
final class MeshPart: Sendable {
    let name: String
    private let executable: String
    private let arguments: [String]
    private let environment: [String: String]
    private let folder: TemporaryFolder
    private let current: Mutex<TestProcess>
    private let isReady: @Sendable () async throws -> Bool

    var process: TestProcess { current.withLock { $0 } }
    /// Of all its lives.
    var log: String { process.log }

    init(
        _ name: String, product: String, arguments: [String], environment: [String: String],
        folder: TemporaryFolder, isReady: @escaping @Sendable () async throws -> Bool
    ) throws {
        self.name = name
        self.arguments = arguments
        self.environment = environment
        self.folder = folder
        self.isReady = isReady
        executable = Products.path(product)
        current = Mutex(
            try TestProcess(
                name, executable: executable, arguments: arguments, environment: environment,
                folder: folder))
    }

    func ready(within bound: Duration = .seconds(15)) async throws {
        let process = process
        try await eventually("\(name) is ready", within: bound) {
            guard process.isRunning else { return true }
            return try await isReady()
        }
        guard process.isRunning else {
            throw TestProcess.Failed(description: "\(name) ended at its start:\n\(process.log)")
        }
    }

    /// A new life on the old data; does not wait until it is ready.
    func startAgain() throws {
        precondition(!process.isRunning, "\(name) is still running")
        let next = try TestProcess(
            name, executable: executable, arguments: arguments, environment: environment,
            folder: folder)
        current.withLock { $0 = next }
    }
}
