import Glibc
import SidecarCore
import WeirCore
import WeirMeshProtocol

/// What a sidecar starts from when the control plane is away: who it was, and the last policy that
/// it applied. A secret file (session, hop keys), so only its owner may read it.
package struct LastGood: Hashable, Sendable, Codable {
    static let formatVersion = 1

    package var format = Self.formatVersion
    package var role: Role
    package var agent: String?
    package var join: JoinResponse
    package var projectionHash: String?
    package var projection: Projection?

    package init(role: Role, agent: String?, join: JoinResponse) {
        self.role = role
        self.agent = agent
        self.join = join
    }
}

/// The file of `LastGood`: replaced whole (temporary file, fsync, rename, fsync of the folder), so
/// that a crash leaves the old one or the new one.
package struct LastGoodFile: Sendable {
    package let path: String
    private let folder: String

    package init(folder: String) {
        self.folder = folder
        path = folder + "/last-good.json"
    }

    /// `nil` when there is none. A file that cannot be read or understood is an error for people to
    /// see; the sidecar then starts as if there were none.
    package func read() throws -> LastGood? {
        let raw = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard raw >= 0 else {
            if errno == ENOENT { return nil }
            throw SystemError("open \(path)")
        }
        let descriptor = FileDescriptor(owning: raw)
        var information = stat()
        guard fstat(descriptor.raw, &information) == 0 else { throw SystemError("fstat \(path)") }
        guard information.st_mode & 0o077 == 0 else {
            throw Problem(path: "", message: "\(path) holds secrets and others may read it")
        }
        guard information.st_size <= UplinkLimits.snapshotBytesMax else {
            throw Problem(path: "", message: "\(path) is larger than a snapshot can be")
        }
        let bytes = try readAll(descriptor.raw, count: Int(information.st_size))
        let lastGood = try JSON.decode(LastGood.self, from: bytes)
        guard lastGood.format == LastGood.formatVersion else {
            throw Problem(path: "/format", message: "\(path) is of another format")
        }
        return lastGood
    }

    private func readAll(_ raw: Int32, count: Int) throws(SystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let got = bytes.withUnsafeMutableBytes {
                Glibc.read(raw, $0.baseAddress.map { $0 + done }, count - done)
            }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw SystemError("read \(path)") }
            if got == 0 { break }
            done += got
        }
        return Array(bytes.prefix(done))
    }

    package func write(_ lastGood: LastGood) throws {
        let bytes = try JSON.encode(lastGood)
        let temporary = path + ".new"
        // A left-over of a crash may have another mode.
        unlink(temporary)
        let raw = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard raw >= 0 else { throw SystemError("open \(temporary)") }
        let descriptor = FileDescriptor(owning: raw)
        var done = 0
        while done < bytes.count {
            let put = bytes.withUnsafeBytes {
                Glibc.write(descriptor.raw, $0.baseAddress.map { $0 + done }, bytes.count - done)
            }
            if put < 0 && errno == EINTR { continue }
            guard put > 0 else { throw SystemError("write \(temporary)") }
            done += put
        }
        guard fsync(descriptor.raw) == 0 else { throw SystemError("fsync \(temporary)") }
        guard rename(temporary, path) == 0 else { throw SystemError("rename \(path)") }
        try syncFolder()
    }

    private func syncFolder() throws(SystemError) {
        let raw = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard raw >= 0 else { throw SystemError("open \(folder)") }
        let descriptor = FileDescriptor(owning: raw)
        guard fsync(descriptor.raw) == 0 else { throw SystemError("fsync \(folder)") }
    }
}
