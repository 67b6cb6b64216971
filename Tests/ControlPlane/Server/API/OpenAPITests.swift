import NIOHTTP1
import Testing
import WeirCore
import WeirMeshProtocol

@testable import ControlPlaneServer

@Suite("The server does what its description says", .timeLimit(.minutes(1)))
struct OpenAPITests {
    @Test func everyRouteAnswersAsDocumented() async throws {
        let document = try OpenAPIDocument.read()
        try await TestControlPlane.run { server in
            let served = try await server.send(.GET, "/openapi.json", token: nil)
            #expect(served.body == document)
            _ = try await server.put(try SamplePolicy.documents())
            let member = try await server.joined().response.incarnation
            for (path, item) in try #require(document["paths"]?.object).members {
                for (method, operation) in try #require(item.object).members
                where method != "parameters" {
                    let path = path.replacing("{incarnation}", with: "\(member)")
                    try await check(server, document, path, method, operation)
                }
            }
        }
    }

    /// Asks once properly, and where a token is needed once without.
    private func check(
        _ server: TestControlPlane, _ document: JSONValue, _ path: String, _ method: String,
        _ operation: JSONValue
    ) async throws {
        let url =
            path.replacing("{number}", with: "1").replacing("{user}", with: "alice")
            .replacing("{id}", with: "nothing")
            + (path == "/v1/accounts" ? "?account=usd/user/2026-11/nobody" : "")
        let body: JSONValue? =
            switch (path, method) {
            case ("/v1/policy", "put"): ["documents": .array(try SamplePolicy.documents())]
            case ("/v1/policy/rollback", "post"): ["to": 1]
            case ("/v1/users/{user}/tier", "put"): ["tier": "free"]
            case ("/v1/users/{user}/limit", "put"): ["monthly_limit_usd": "1"]
            case (_, "post") where path.hasSuffix("/write-off"):
                // It joined a moment ago.
                ["dry_run": true, "force": true]
            case ("/v1/keys", "post"): ["user": "alice", "roles": ["user"]]
            default: nil
            }
        let isPublic = operation["security"]?.array?.isEmpty ?? false
        for token in isPublic ? [nil] : [TestControlPlane.administrator, nil] {
            let answer = try await server.send(
                HTTPMethod(rawValue: method.uppercased()), url, body?.bytes,
                headers: body == nil ? [:] : ["content-type": "application/json"], token: token)
            let name = "\(method) \(url) → \(answer.status)"
            #expect(
                token != nil || isPublic ? answer.status < 405 : answer.status == 401, "\(name)")
            let response = operation["responses"]?[String(answer.status)]
            let resolved = SchemaCheck(document).resolved(try #require(response, "\(name)"))
            let type = String(answer.contentType.prefix { $0 != ";" })
            let content = try #require(resolved["content"]?[type], "\(name) \(type)")
            if type.hasSuffix("json"), let schema = content["schema"] {
                #expect(SchemaCheck(document).faults(answer.body, schema) == [], "\(name)")
            }
        }
    }

    @Test func aWrongShapeIsSeen() throws {
        let check = SchemaCheck(try OpenAPIDocument.read())
        let version: JSONValue = ["$ref": "#/components/schemas/Version"]
        #expect(check.faults(["epoch": 1, "number": 2, "hash": "ab"], version) == [])
        #expect(check.faults(["epoch": "1", "number": 2], version).count == 2)
    }
}

/// As much of JSON Schema as the description uses.
struct SchemaCheck {
    let document: JSONValue

    init(_ document: JSONValue) { self.document = document }

    func resolved(_ value: JSONValue) -> JSONValue {
        guard let reference = value["$ref"]?.string else { return value }
        return JSONPointer(reference.dropFirst())?.evaluate(document) ?? .null
    }

    func faults(_ value: JSONValue, _ schema: JSONValue, at path: String = "") -> [String] {
        let schema = resolved(schema)
        if let options = schema["anyOf"]?.array {
            return options.contains { faults(value, $0).isEmpty } ? [] : ["\(path): fits nothing"]
        }
        var found: [String] = []
        let types =
            schema["type"]?.array?.compactMap(\.string) ?? schema["type"]?.string.map { [$0] }
        if let types, !types.contains(where: { matches(value, $0) }) {
            found.append("\(path): is \(value.kindName), not \(types)")
        }
        if let constant = schema["const"], constant != value { found.append("\(path): const") }
        if let options = schema["enum"]?.array, !options.contains(value) {
            found.append("\(path): \(value.text) is not in the enum")
        }
        for name in schema["required"]?.array?.compactMap(\.string) ?? []
        where value.object != nil && value[name] == nil {
            found.append("\(path)/\(name): is missing")
        }
        for (name, property) in schema["properties"]?.object?.members ?? [] {
            if let member = value[name] { found += faults(member, property, at: "\(path)/\(name)") }
        }
        if let items = schema["items"] {
            for (index, element) in (value.array ?? []).enumerated() {
                found += faults(element, items, at: "\(path)/\(index)")
            }
        }
        return found
    }

    private func matches(_ value: JSONValue, _ type: String) -> Bool {
        switch type {
        case "object": value.object != nil
        case "array": value.array != nil
        case "string": value.string != nil
        case "integer": value.int64 != nil
        case "boolean": value.bool != nil
        default: false
        }
    }
}
