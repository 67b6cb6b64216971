import Foundation
import FoundationNetworking
import Hummingbird

/// A call that an agent makes of another one while it works on a request: on its own sidecar's
/// outbound listener, with the `weir-run` that came with the request.
struct OwnCall: Sendable {
    let port: Int

    private static let question = """
        {"model": "llama", "max_tokens": 20,
         "messages": [{"role": "user", "content": "Is this good news?"}]}
        """

    func make(for request: Request) async throws -> AgentState.Called {
        guard let url = URL(string: "http://127.0.0.1:\(port)/v1/chat/completions") else {
            throw URLError(.badURL)
        }
        var call = URLRequest(url: url)
        call.httpMethod = "POST"
        call.httpBody = Data(Self.question.utf8)
        call.setValue("application/json", forHTTPHeaderField: "content-type")
        for field in request.headers where field.name.canonicalName == "weir-run" {
            call.setValue(field.value, forHTTPHeaderField: "weir-run")
        }
        let (body, response) = try await URLSession.shared.data(for: call)
        guard let response = response as? HTTPURLResponse else {
            throw URLError(.badServerResponse)
        }
        var headers: [String: String] = [:]
        for (name, value) in response.allHeaderFields {
            headers["\(name)".lowercased()] = "\(value)"
        }
        return AgentState.Called(
            status: response.statusCode, headers: headers,
            body: String(decoding: body, as: UTF8.self))
    }
}
