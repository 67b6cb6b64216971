import Glibc

/// What libFuzzer links against. Built with `WEIR_FUZZ=1` only; see `scripts/fuzz`.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ test: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// `weir-fuzz TARGET [ARGUMENTS OF LIBFUZZER]`; without a target it lists them.
@main struct Fuzzer {
    /// Written once, before the driver starts.
    nonisolated(unsafe) private static var target: FuzzTarget?

    static func main() {
        let name = CommandLine.arguments.dropFirst().first ?? ""
        guard let found = FuzzTarget.all.first(where: { $0.name == name }) else {
            for target in FuzzTarget.all { print(target.name, target.inputBytesMax) }
            exit(name.isEmpty ? 0 : 2)
        }
        target = found
        // The driver wants a vector without the target's name.
        let arguments = [CommandLine.arguments[0]] + CommandLine.arguments.dropFirst(2)
        var count = CInt(arguments.count)
        let vector = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
            capacity: arguments.count + 1)
        for (index, argument) in arguments.enumerated() { vector[index] = strdup(argument) }
        vector[arguments.count] = nil
        var pointer = vector
        exit(
            runDriver(&count, &pointer) { bytes, count in
                Fuzzer.check(UnsafeRawBufferPointer(start: bytes, count: count))
                return 0
            })
    }

    private static func check(_ bytes: UnsafeRawBufferPointer) {
        guard let target, bytes.count <= target.inputBytesMax else { return }
        do throws(PropertyFailure) { try target.check(bytes) } catch {
            // The trap, whose words a release leaves out, is what makes libFuzzer keep the input.
            let words = Array("PROPERTY: \(error)\n".utf8)
            _ = Glibc.write(STDERR_FILENO, words, words.count)
            preconditionFailure("an input without the property of \(target.name)")
        }
    }
}
