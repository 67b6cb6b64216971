import Glibc

/// An open file descriptor with one owner, closed when the owner lets go of it.
package struct FileDescriptor: ~Copyable {
    package let raw: Int32

    package init(owning raw: Int32) {
        precondition(raw >= 0, "not a descriptor")
        self.raw = raw
    }

    /// Hands the descriptor to another owner, who closes it.
    package consuming func take() -> Int32 {
        let raw = self.raw
        discard self
        return raw
    }

    deinit {
        // Linux frees the number even when close is interrupted, so there is nothing to repeat.
        _ = Glibc.close(raw)
    }
}

/// A failed system call: which one, and its errno.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    package let call: String
    package let code: Int32

    package init(_ call: String, code: Int32 = errno) {
        self.call = call
        self.code = code
    }

    package var description: String { "\(call): \(String(cString: strerror(code)))" }
}
