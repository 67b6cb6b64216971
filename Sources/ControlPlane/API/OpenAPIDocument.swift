import WeirCore
import WeirYAML

/// The description of the API (OpenAPI 3.1): docs/openapi.yaml, built into the binary.
package enum OpenAPIDocument {
    package static func read() throws(Problems) -> JSONValue {
        let text = String(decoding: PackageResources.openapi_yaml, as: UTF8.self)
        let documents = try YAMLDocuments.read(text)
        guard let document = documents.first, documents.count == 1 else {
            throw Problems([Problem(path: "", message: "openapi.yaml is not one document")])
        }
        return document
    }
}
