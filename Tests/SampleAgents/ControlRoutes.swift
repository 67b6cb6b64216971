import HTTPTypes
import Hummingbird

/// The endpoints for those who test: `GET /__stats`, `PUT /__reset`, `PUT /__fault`.
struct ControlRoutes {
    /// `{"kind": "fail", "arg": 503, "times": 2}`; kind `none` ends a fault.
    private struct FaultOrder: Decodable {
        let kind: String
        let arg: Int?
        let times: Int?
    }

    let state: AgentState

    func add(to router: Router<AgentServer.Context>) {
        router.get("/__stats") { _, _ in json(state.stats) }
        router.put("/__reset") { _, _ in
            state.reset()
            return json(state.stats)
        }
        router.put("/__fault") { request, _ in
            let body = try await request.body.collect(upTo: 4096)
            do throws(Refusal) {
                try order(Array(body.readableBytesView))
                return json(["ok": true])
            } catch {
                return json(["error": error.message], status: .init(code: error.status))
            }
        }
    }

    private func order(_ body: [UInt8]) throws(Refusal) {
        let order = try SampleJSON.decode(FaultOrder.self, from: body)
        if order.kind == "none" {
            state.setFault(nil, times: nil)
        } else if let fault = Fault(kind: order.kind, argument: order.arg) {
            state.setFault(fault, times: order.times)
        } else {
            throw .invalid("no such fault; there are: \(Fault.help)")
        }
    }
}
