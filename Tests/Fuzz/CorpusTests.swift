import Glibc
import Testing

/// Every input of the corpus, which holds all that a fuzzer found: a property that fails, fails
/// here first, in a build without any fuzzer.
@Suite struct CorpusTests {
    @Test(arguments: FuzzTarget.all)
    func everyInputHasItsProperty(target: FuzzTarget) throws {
        let folder = Self.corpus + "/" + target.name
        let files = Self.files(in: folder)
        #expect(files.count >= 5, "\(folder) has no corpus")
        for file in files {
            let bytes = try #require(Self.read(folder + "/" + file))
            let failure = bytes.withUnsafeBytes { bytes -> PropertyFailure? in
                do throws(PropertyFailure) { try target.check(bytes) } catch { return error }
                return nil
            }
            #expect(failure == nil, "\(target.name)/\(file)")
        }
    }

    @Test func noInputIsWithoutItsTarget() {
        #expect(Self.files(in: Self.corpus) == FuzzTarget.all.map(\.name).sorted())
    }

    private static let corpus: String = {
        let file = "\(#filePath)"
        return file.dropLast("CorpusTests.swift".count) + "Corpus"
    }()

    private static func files(in folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }

    private static func read(_ path: String) -> [UInt8]? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 17)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes.prefix(count))
    }
}
