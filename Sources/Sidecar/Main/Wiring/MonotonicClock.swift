import CLinux

/// The loops' clock, for threads that are none.
enum MonotonicClock {
    static var nowNanoseconds: UInt64 { weir_monotonic_nanoseconds() }
}
