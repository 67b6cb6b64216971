import SidecarCore
import WeirCore
import WeirMeshProtocol

// What a gateway is told of the rest of the mesh, for the endpoints that show it.

extension Uplink {
    /// Once a second while there is a connection. A view that is missed is not asked for again: the
    /// next one says more.
    func followState() async {
        while !isStopping {
            await pause(nanoseconds: UplinkLimits.stateNanoseconds)
            guard !isStopping, isReady else { continue }
            do {
                let body = try await send("GET", MeshPath.state, [], contentType: nil)
                hooks.stateReceived(try JSON.decode(MeshState.self, from: body))
            } catch {
                hooks.log.warning("the state of the mesh is not known", ("error", describe(error)))
            }
        }
    }
}
