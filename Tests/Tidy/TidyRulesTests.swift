import Testing

/// The rules find what they are for: a rule that finds nothing looks like a clean repository.
struct TidyRulesTests {
    private func banned(_ line: String, path: String) throws -> Bool {
        try !TidyRules.bans(SourceFile(path: path, text: line)).isEmpty
    }

    @Test(arguments: [
        ("// TO" + "DO: later", "Sources/Common/Core/A.swift"),
        ("// XX" + "X", "Tests/A.swift"),
        ("fatalError(\"x\")", "Sources/Sidecar/Main/A.swift"),
        ("let a = try! f()", "Tests/A.swift"),
        ("let a = b as! C", "Sources/ControlPlane/API/A.swift"),
        ("    public func f() {}", "Sources/Common/Core/A.swift"),
        ("@inlinable public func f() {}", "Sources/Common/Core/A.swift"),
        ("import Foundation", "Sources/Common/Core/A.swift"),
        ("import FoundationEssentials", "Sources/Sidecar/Engine/A.swift"),
        ("@preconcurrency import NIOCore", "Sources/Sidecar/Engine/A.swift"),
        ("package import Foundation", "Sources/Sidecar/Engine/A.swift"),
        ("try await Task.sleep(for: .seconds(1))", "Tests/Sidecar/A.swift"),
        ("usleep(1000)", "Tests/Sidecar/A.swift"),
        ("usleep(1000)  // tidy:", "Tests/Sidecar/A.swift"),
    ])
    func `what is banned is found`(line: String, path: String) throws {
        #expect(try banned(line, path: path))
    }

    @Test(arguments: [
        ("// a fatalError( in prose", "Sources/Common/Core/A.swift"),
        ("let text = \"try! it\"", "Sources/Common/Core/A.swift"),
        ("import Foundation", "Sources/ControlPlane/API/A.swift"),
        ("import Foundation", "Tests/Tidy/A.swift"),
        ("try await loop.sleep(nanoseconds: 5)", "Sources/Sidecar/Uplink/A.swift"),
        ("try await Task.sleep(for: .seconds(1))", "Tests/SampleAgents/A.swift"),
        ("/// The public API of the mesh", "Sources/Common/Core/A.swift"),
        ("usleep(10)  // tidy: the poll itself", "Tests/Sidecar/A.swift"),
        ("// tidy: the poll itself\nusleep(10)", "Tests/Sidecar/A.swift"),
    ])
    func `what is allowed is not`(line: String, path: String) throws {
        #expect(try !banned(line, path: path))
    }

    @Test func `long files, functions and lines are found`() {
        let body = Array(repeating: "        work()", count: 70)
        let long = ["struct A {", "    func f() {"] + body + ["    }", "}"]
        let file = SourceFile(path: "A.swift", text: long.joined(separator: "\n"))
        #expect(
            TidyRules.sizes(file)
                == [
                    Finding(
                        path: "A.swift", line: 2, message: "72 lines in one function; at most 70")
                ]
        )
        let wide = SourceFile(path: "A.swift", text: String(repeating: "x", count: 101))
        #expect(TidyRules.sizes(wide).map(\.line) == [1])
        let tall = SourceFile(path: "A.swift", text: String(repeating: "\n", count: 600))
        #expect(TidyRules.sizes(tall).map(\.line) == [0])
    }

    @Test func `functions are measured whole, whatever their head looks like`() {
        let text = """
            protocol P {
                func declared()
            }

            extension A {
                @discardableResult
                package static func wrapped(
                    _ a: Int
                ) async throws -> Int {
                    guard a > 0 else {
                        return 0
                    }
                    return 1
                }

                init(
                    b: Int)
                {
                    self.b = b
                }

                func short() { work() }
            }
            """
        let functions = TidyRules.functions(SourceFile(path: "A.swift", text: text))
        #expect(functions.map(\.line) == [7, 16])
        #expect(functions.map(\.lines) == [8, 5])
    }

    @Test func `the manifest's folders are read`() {
        let manifest = Manifest(
            """
            module("A", "Sources/Common/A", dependencies: ["B"]),
            module("C", "Sources/Side", sources: ["One", "Two", "f.swift"], dependencies: []),
            .executableTarget(name: "E", dependencies: [x(y: 1)], path: "Tests/E"),
            """)
        #expect(manifest.owns("Sources/Common/A/f.swift"))
        #expect(manifest.owns("Sources/Side/One/f.swift"))
        #expect(!manifest.owns("Sources/Side/Three/f.swift"))
        #expect(manifest.owns("Sources/Side/f.swift"))
        #expect(!manifest.owns("Sources/Side/g.swift"))
        #expect(manifest.owns("Tests/E/deep/f.swift"))
        #expect(!manifest.owns("Tests/Elsewhere/f.swift"))
    }
}
