import SidecarCore
import Synchronization

/// The keys that sidecars add upstream, by the names that policies give them. Those that came from
/// a file (`OPENAI_API_KEY_FILE`) are read again while the process runs, because a mounted secret
/// is replaced in place. A file that cannot be read or holds no key leaves the key as it was.
final class Credentials: Sendable {
    struct Reload: Hashable, Sendable {
        var changed: [String] = []
        /// Files whose content cannot be used, each said once until it can.
        var unusable: [OptionProblem] = []
    }

    private struct State {
        var keys: [String: String]
        var unusable: Set<String> = []
    }

    private let files: [String: String]
    private let state: Mutex<State>

    /// - Parameters:
    ///   - keys: by name.
    ///   - files: the paths of those that were read from one, by name.
    init(_ keys: [String: String], files: [String: String]) {
        self.files = files
        state = Mutex(State(keys: keys))
    }

    var areWatched: Bool { !files.isEmpty }

    /// The value of `authorization` upstream.
    func authorization(_ name: String) -> String? {
        key(name).map { "Bearer " + $0 }
    }

    func key(_ name: String) -> String? { state.withLock { $0.keys[name] } }

    /// Reads the files; they are small and local, and this is called on the control loop only.
    func reload(_ readFile: (String) throws(OptionProblem) -> [UInt8]) -> Reload {
        var result = Reload()
        for (name, path) in files.sorted(by: { $0.key < $1.key }) {
            do throws(OptionProblem) {
                let key = SecretText.text(of: try readFile(path))
                guard SecretText.isKey(key) else {
                    throw OptionProblem(option: path, message: SecretText.need)
                }
                state.withLock { state in
                    state.unusable.remove(name)
                    guard state.keys.updateValue(key, forKey: name) != key else { return }
                    result.changed.append(name)
                }
            } catch {
                let isNews = state.withLock { $0.unusable.insert(name).inserted }
                if isNews {
                    result.unusable.append(OptionProblem(option: path, message: error.message))
                }
            }
        }
        return result
    }
}

/// What a file or a variable holds that is a secret.
enum SecretText {
    static let need = "holds no key: visible ASCII without spaces is needed"

    /// Editors and `echo` end a file with a line end that is no part of the secret.
    static func text(of file: [UInt8]) -> String {
        var bytes = file[...]
        while let last = bytes.last, last == 0x0A || last == 0x0D { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Whether it can stand in a header field as it is.
    static func isKey(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
    }
}
