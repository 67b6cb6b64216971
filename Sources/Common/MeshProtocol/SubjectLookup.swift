import WeirLedger

/// `POST /mesh/v1/subject`: who a caller is, and leases of accounts that the caller is likely to
/// have, so that a user's first request needs one exchange and not two. On the wire the members of
/// a `SubjectRequest`, and `acquire` where there is one; whoever does not know that passes over it,
/// and answers without `leases`.
package struct SubjectLookup: Hashable, Sendable {
    package var subject: SubjectRequest
    package var acquire: [LeaseAcquire]

    package init(subject: SubjectRequest, acquire: [LeaseAcquire] = []) {
        self.subject = subject
        self.acquire = acquire
    }
}

/// The members of a `SubjectBinding`, and `leases`: what the acquires alone would be answered.
package struct SubjectAnswer: Hashable, Sendable {
    package var binding: SubjectBinding
    package var leases: LeasesResponse?

    package init(binding: SubjectBinding, leases: LeasesResponse? = nil) {
        self.binding = binding
        self.leases = leases
    }
}

extension SubjectLookup: Codable {
    private enum CodingKeys: CodingKey { case acquire }

    package init(from decoder: any Decoder) throws {
        subject = try SubjectRequest(from: decoder)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        acquire = try container.decodeIfPresent([LeaseAcquire].self, forKey: .acquire) ?? []
    }

    package func encode(to encoder: any Encoder) throws {
        try subject.encode(to: encoder)
        guard !acquire.isEmpty else { return }
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(acquire, forKey: .acquire)
    }
}

extension SubjectAnswer: Codable {
    private enum CodingKeys: CodingKey { case leases }

    package init(from decoder: any Decoder) throws {
        binding = try SubjectBinding(from: decoder)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        leases = try container.decodeIfPresent(LeasesResponse.self, forKey: .leases)
    }

    package func encode(to encoder: any Encoder) throws {
        try binding.encode(to: encoder)
        guard let leases else { return }
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(leases, forKey: .leases)
    }
}
