import WeirCore
import WeirPolicy

/// `GET /v1/models`, and one model of it by name: what the caller may give as `model`. A model's id
/// may have one slash, which clients leave in the path or encode.
struct ModelsEndpoint: GatewayEndpoint {
    enum Form: String, CaseIterable {
        case list = "/v1/models"
        case one = "/v1/models/{model}"
        case oneOfOwner = "/v1/models/{owner}/{model}"
    }

    let form: Form
    let identity: CallerIdentity
    let dependencies: GatewayDependencies
    let methods = ["GET", "HEAD"]

    var path: String { form.rawValue }

    func respond(
        to request: GatewayRequest, on worker: GatewayWorker
    ) async throws(GatewayRefusal) -> GatewayAnswer {
        let snapshot = try dependencies.snapshotInForce()
        let caller = try await identity.identify(
            request, snapshot: snapshot, now: worker.clock.now
        ).caller
        let catalog = ModelCatalog(policy: snapshot.policy)
        let body: JSONValue
        if form == .list {
            body = catalog.list(for: caller)
        } else {
            let parameters = try request.allParameters()
            let name = [parameters["owner"], parameters["model"]].compactMap(\.self)
                .joined(separator: "/")
            guard let entry = catalog[name] else {
                throw GatewayRefusal(.unknownAgent, "There is no chat model of this name.")
            }
            try entry.checkAccess(of: caller)
            body = entry.json
        }
        return .json(200, body, [GatewayField("cache-control", "no-store")])
    }
}

extension ModelCatalog {
    /// As `GET /v1/models` answers.
    func list(for caller: Caller) -> JSONValue {
        ["object": "list", "data": .array(entries(for: caller).map(\.json))]
    }
}

extension ModelCatalog.Entry {
    /// `root` is the model that the name stands for, as fine-tuned models have it. Nothing here
    /// knows when a provider made a model, and clients want a number.
    fileprivate var json: JSONValue {
        [
            "id": .string(name), "object": "model", "created": 0, "owned_by": .string(agent.name),
            "root": .string(model),
        ]
    }
}
