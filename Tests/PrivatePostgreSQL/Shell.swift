import Foundation

/// A child that reads what this process writes to it. Not by Foundation's `Process`: that hands the
/// signal mask of the calling thread on, and a shell whose SIGCHLD is blocked waits for ever.
struct Shell {
    private let process: pid_t
    private let input: Int32

    init(_ arguments: [String]) throws {
        var ends: [Int32] = [0, 0]
        // Other children of this process must not keep it open.
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
            throw PrivatePostgreSQL.Failure(description: "no socket can be made")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        var process: pid_t = 0
        let result = posix_spawn(
            &process, arguments[0], &actions, &attributes, &pointers, environ)
        close(ends[0])
        guard result == 0 else {
            close(ends[1])
            throw PrivatePostgreSQL.Failure(description: "\(arguments[0]) cannot be started")
        }
        self.process = process
        input = ends[1]
    }

    /// Says its last word to the shell, and waits until it has ended.
    func end(with word: String) {
        let bytes = Array(word.utf8)
        write(input, bytes, bytes.count)
        close(input)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
    }
}
