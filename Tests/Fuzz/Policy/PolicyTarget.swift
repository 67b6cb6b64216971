import WeirCore
import WeirPolicy

/// A policy's documents: reading ends with a policy or with problems that have a place, and reading
/// twice says the same.
enum PolicyTarget {
    static func check(_ bytes: UnsafeRawBufferPointer) throws(PropertyFailure) {
        guard let document = try? JSON.parse(Array(bytes)) else { return }
        let documents = document.array ?? [document]
        let first = read(documents)
        try require(first == read(documents), "read twice it is another policy")
        if case .failure(let problems) = first {
            try require(!problems.list.isEmpty, "refused without a problem")
            try require(
                problems.list.allSatisfy { $0.path.hasPrefix("/documents") },
                "a problem without a place")
        }
    }

    private static func read(_ documents: [JSONValue]) -> Result<Policy, Problems> {
        do throws(Problems) { return .success(try PolicyReader.read(documents)) } catch {
            return .failure(error)
        }
    }
}
