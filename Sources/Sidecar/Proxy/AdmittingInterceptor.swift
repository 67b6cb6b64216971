/// Admits every request to one target and says so in the response: the data plane without
/// admission, for benchmarks and for a sidecar in `observe` mode before its first policy.
package final class AdmittingInterceptor: Interceptor {
    private let target: UpstreamTarget

    package init(_ target: UpstreamTarget) { self.target = target }

    override package func requestBegan(_ exchange: Exchange) -> Verdict { .admit(target) }

    override package func responseBegan(_ exchange: Exchange, status: Int) {
        exchange.addedResponseFields.add("weir-decision", "admitted")
    }
}
