import SidecarCore
import Synchronization
import WeirCore
import WeirCrypto
import WeirLedger
import WeirMeshProtocol

/// Opens what sidecars bring with the calls of their agents: genuine by the hop key of a sidecar
/// that this gateway knows, of that sidecar's present life, and seen for the first time here.
final class OutboundCalls: Sendable {
    /// The numbers of one sidecar's life that were seen. They come nearly in order, because calls
    /// of many requests share connections; one that is too old to tell counts as seen.
    private struct Window {
        private static let size = UInt64(GatewayLimits.callWindow)

        private var highest: UInt64 = 0
        /// Bit n of the ring: number n modulo `size` was seen.
        private var seen = [UInt64](repeating: 0, count: GatewayLimits.callWindow / 64)

        mutating func admit(_ number: UInt64) -> Bool {
            if number > highest {
                for passed in (highest + 1)...min(number, highest + Self.size) {
                    set(passed, false)
                }
                highest = number
            } else if highest - number >= Self.size || isSet(number) {
                return false
            }
            set(number, true)
            return true
        }

        private func isSet(_ number: UInt64) -> Bool {
            let bit = number % Self.size
            return seen[Int(bit / 64)] >> (bit % 64) & 1 != 0
        }

        private mutating func set(_ number: UInt64, _ value: Bool) {
            let bit = number % Self.size
            let mask: UInt64 = 1 << (bit % 64)
            if value { seen[Int(bit / 64)] |= mask } else { seen[Int(bit / 64)] &= ~mask }
        }
    }

    private let windows = Mutex<[Incarnation: Window]>([:])

    func open(
        _ authorization: String?, path: String, _ snapshot: GatewaySnapshot
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
            let call = OutboundCall(payload: payload), OutboundCall.pathPrefix + call.path == path
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
