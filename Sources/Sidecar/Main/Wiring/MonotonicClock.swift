import CLinux
import Glibc
import WeirCore

/// The loops' clock, for threads that are none.
enum MonotonicClock {
    static var nowNanoseconds: UInt64 { weir_monotonic_nanoseconds() }
}

/// Time for people and records.
enum WallClock {
    static var now: UnixTime {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UnixTime(milliseconds: Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000)
    }
}
