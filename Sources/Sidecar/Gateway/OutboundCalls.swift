import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

/// Opens what sidecars bring with the calls of their agents: genuine by the hop key of a sidecar
/// that this gateway knows, of that sidecar's present life, and seen for the first time here.
final class OutboundCalls: Sendable {
    /// The numbers of one sidecar's life that were seen. They come nearly in order; one that is too
    /// old to tell counts as seen.
    private struct Window {
        var highest: UInt64 = 0
        /// Bit n: `highest` − n.
        var seen: UInt64 = 0

        mutating func admit(_ number: UInt64) -> Bool {
            if number > highest {
                let shift = number - highest
                seen = shift < 64 ? seen << shift | 1 : 1
                highest = number
                return true
            }
            let age = highest - number
            guard age < 64, seen >> age & 1 == 0 else { return false }
            seen |= 1 << age
            return true
        }
    }

    private let windows = Mutex<[Incarnation: Window]>([:])

    func open(
        _ authorization: String?, _ snapshot: GatewaySnapshot
    ) throws(GatewayRefusal) -> OutboundCall {
        guard let authorization, authorization.hasPrefix(OutboundCall.scheme + " ") else {
            throw Self.forbidden
        }
        let sealed = authorization.dropFirst(OutboundCall.scheme.utf8.count + 1)
        guard let claimed = Sealed.unverifiedPayload(sealed),
            let hint = OutboundCall(payload: claimed),
            let endpoint = snapshot.endpoints[hint.agent]?
                .first(where: { $0.incarnation == hint.issuer && $0.hopKeyID == hint.keyID }),
            let payload = Sealed.open(sealed, key: endpoint.hopKey),
            let call = OutboundCall(payload: payload)
        else { throw Self.forbidden }
        guard call.depth <= GatewayLimits.callDepthMax else {
            throw GatewayRefusal(
                .forbidden,
                "Agents called one another \(GatewayLimits.callDepthMax) deep already.")
        }
        guard call.remainingMilliseconds > 0 else {
            throw GatewayRefusal(.deadline, "No time was left when the call came.")
        }
        try admit(call, snapshot)
        return call
    }

    private func admit(
        _ call: OutboundCall, _ snapshot: GatewaySnapshot
    ) throws(GatewayRefusal) {
        let isNew = windows.withLock { windows in
            if windows.count >= GatewayLimits.callersMax {
                // Sidecars that are gone make room; their calls open no more without a key.
                let known = Set(snapshot.endpoints.values.joined().map(\.incarnation))
                windows = windows.filter { known.contains($0.key) }
            }
            return windows[call.issuer, default: Window()].admit(call.number)
        }
        guard isNew else {
            throw GatewayRefusal(.forbidden, "The call was brought before.")
        }
    }

    private static var forbidden: GatewayRefusal {
        GatewayRefusal(.forbidden, "Only sidecars of the mesh bring calls of their agents.")
    }
}
