import WeirLedger

/// How a sidecar says who it is to somebody who only has its address: `OPTIONS *`, which asks about
/// a server as a whole (RFC 9110 §9.3.7), is answered with its incarnation. The number is no secret
/// and proves nothing: whoever takes a delegation needs the hop key that belongs to it.
package enum SidecarIdentity {
    package static let method = "OPTIONS"
    package static let target = "*"
    package static let fieldName = "weir-incarnation"

    static func isAsked(_ head: HTTPHead) -> Bool {
        head.method == .options && head.text(head.target) == target
    }

    static func handler(_ incarnation: Incarnation) -> LocalHandler {
        LocalHandler(bodyBytesMax: 0) { _ in
            LocalResponse(
                status: 204, fields: [(fieldName, incarnation.description)], body: .bytes([]))
        }
    }
}
