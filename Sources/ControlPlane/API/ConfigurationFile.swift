import WeirCore

/// A JSON object with the control plane's settings by the names of their flags. It stands behind
/// the environment: what it says counts where no variable does. Secrets are none of it.
enum ConfigurationFile {
    static let variables = [
        "api": "WEIR_API", "mesh": "WEIR_MESH", "redis": "REDIS_URL", "data": "WEIR_DATA",
        "trial": "WEIR_TRIAL", "mesh-plaintext": "WEIR_MESH_PLAINTEXT", "log-level": "LOG_LEVEL",
        "debug": "DEBUG", "database-pool-size": "DATABASE_POOL_SIZE",
        "redis-ca": "REDIS_CA_FILE", "redis-cert": "REDIS_CERT_FILE",
        "redis-key": "REDIS_KEY_FILE",
    ]

    /// The environment with what the file adds to it, and every problem of the file.
    static func add(
        _ path: String, to environment: [String: String], readFile: (String) -> String?
    ) -> (environment: [String: String], problems: [Problem]) {
        guard let text = readFile(path) else {
            return (environment, [Problem(path: path, message: "cannot be read")])
        }
        let object: JSONObject
        do {
            guard let found = try JSON.parse(text).object else {
                return (environment, [Problem(path: path, message: "a JSON object is needed")])
            }
            object = found
        } catch {
            return (environment, [Problem(path: path, message: "\(error)")])
        }
        var merged = environment
        var problems: [Problem] = []
        for (key, value) in object.members {
            guard let variable = variables[key] else {
                problems.append(
                    Problem(path: "\(path): \(key)", message: "there is no such setting here"))
                continue
            }
            // Numbers and booleans may be written as such.
            merged[variable] = environment[variable] ?? value.string ?? value.text
        }
        return (merged, problems)
    }
}
