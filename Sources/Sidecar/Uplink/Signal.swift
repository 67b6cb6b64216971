import SidecarCore

/// Wakes one waiting task of the loop: by `notify`, or by itself after a time. A notification that
/// comes while nobody waits is kept. Belongs to its loop.
final class Signal {
    private let loop: EventLoop
    private var isSet = false
    private var continuation: CheckedContinuation<Void, Never>?
    private var timer: Timer?

    init(loop: EventLoop) { self.loop = loop }

    func notify() {
        isSet = true
        wake()
    }

    /// Returns after `notify` or after the time, whichever is first.
    func wait(atMostNanoseconds: UInt64) async {
        if !isSet {
            await withCheckedContinuation { continuation in
                precondition(self.continuation == nil, "a signal has one waiter")
                self.continuation = continuation
                timer = loop.schedule(afterNanoseconds: atMostNanoseconds) { [weak self] in
                    self?.wake()
                }
            }
        }
        isSet = false
    }

    private func wake() {
        timer?.cancel()
        timer = nil
        let waiting = continuation
        continuation = nil
        waiting?.resume()
    }
}
