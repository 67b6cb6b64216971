import ControlPlaneStore
import WeirCore
import WeirLedger
import WeirPolicy

/// Compares the accounts of a period with the records, page by page: first those that records name,
/// in their order, then what only the ledger knows.
struct Reconciliation {
    /// Where a page begins.
    enum Place: Hashable, Sendable {
        case records(AccountKey.Scope, after: String)
        case ledger
    }

    struct Page: Sendable {
        var comparisons: [AccountComparison]
        /// Accounts of API keys, which records do not name.
        var unnamed = 0
        /// Accounts that differ, beyond those that are listed.
        var omitted = 0
        var next: Place?
    }

    let ledger: LedgerStore
    let archive: Archive
    let policies: PolicyStore
    let budgets: [BudgetPolicy]
    let period: Period

    func page(at place: Place) async throws -> Page {
        var page: Page
        switch place {
        case .records(let scope, let id): page = try await recorded(scope, after: id)
        case .ledger: page = try await unrecorded()
        }
        for position in page.comparisons.indices
        where page.comparisons[position].state == .differs {
            try await explain(&page.comparisons[position])
        }
        return page
    }

    private func key(_ scope: AccountKey.Scope, _ id: String) -> AccountKey {
        AccountKey(unit: .usd, scope: scope, period: period, id: id)
    }

    private func sums(
        _ scope: AccountKey.Scope, _ selection: AccountSelection
    ) async throws -> [RecordedSum] {
        try await archive.recorded(
            of: scope, in: period, selection, meshUser: SubjectStore.meshUser,
            limit: StoreLimits.reconcilePage)
    }

    // MARK: Accounts that records name

    private func recorded(_ scope: AccountKey.Scope, after id: String) async throws -> Page {
        // The account is read after the records and may be ahead of them: a record that came in
        // between is in the next look. The other way round one that was lost could stay unseen.
        let sums = try await sums(scope, .after(id))
        let books = try await ledger.books(of: sums.map { key(scope, $0.id) })
        let all = zip(books, sums).map {
            AccountComparison(books: $0, recorded: $1.cost, records: $1.records)
        }
        var page = Page(comparisons: all.filter { isAccount($0.books) })
        page.next = next(after: scope, sums)
        for position in page.comparisons.indices where scope != .user {
            if page.comparisons[position].state == .differs,
                try await !hadBudgetThroughout(page.comparisons[position].books.account)
            {
                page.comparisons[position].obstacle =
                    "its Budget is younger than the period, or was absent for a time"
            }
        }
        return page
    }

    private func next(after scope: AccountKey.Scope, _ sums: [RecordedSum]) -> Place? {
        if sums.count == StoreLimits.reconcilePage, let last = sums.last {
            return .records(scope, after: last.id)
        }
        switch scope {
        case .user: return .records(.tenant, after: "")
        case .tenant: return .records(.tier, after: "")
        case .tier: return .records(.tag, after: "")
        case .tag, .run, .key, .mesh, .standby: return .ledger
        }
    }

    /// A user has an account always; a tenant, a tier and a tag where a Budget says so.
    private func isAccount(_ books: AccountBooks) -> Bool {
        let account = books.account
        return account.scope == .user || books.consumed > .zero || books.held > .zero
            || budgets.contains {
                $0.scope.rawValue == account.scope.rawValue && $0.id == account.id
            }
    }

    /// Whether every policy that was in force during the period had the account. Records of the
    /// time before are the tenant's or the tier's, and not the account's.
    private func hadBudgetThroughout(_ account: AccountKey) async throws -> Bool {
        let start = period.beginning
        for activation in try await policies.history(limit: StoreLimits.policyHistoryMax) {
            if let end = period.end, activation.activatedAt >= end { continue }
            guard let stored = try await policies.bundle(number: activation.version.number) else {
                return true
            }
            let has = stored.documents.contains {
                $0["kind"] == "Budget"
                    && $0["spec"]?["scope"]?.string == account.scope.rawValue
                    && $0["spec"]?["id"]?.string == account.id
            }
            guard has else { return false }
            if activation.activatedAt <= start { break }
        }
        return true
    }

    // MARK: Accounts that only the ledger knows

    private func unrecorded() async throws -> Page {
        var page = Page(comparisons: [])
        let accounts = Dictionary(grouping: try await ledger.accounts(in: period), by: \.scope)
        for scope in [AccountKey.Scope.user, .tenant, .tier, .tag] {
            try await addUnrecorded(accounts[scope] ?? [], of: scope, to: &page)
        }
        if let mesh = try await meshAccount(accounts[.mesh] ?? []) { page.comparisons.append(mesh) }
        page.unnamed = (accounts[.key] ?? []).count + (accounts[.run] ?? []).count
        return page
    }

    private func addUnrecorded(
        _ accounts: [AccountKey], of scope: AccountKey.Scope, to page: inout Page
    ) async throws {
        for start in stride(from: 0, to: accounts.count, by: StoreLimits.reconcilePage) {
            let batch = Array(
                accounts[start..<min(accounts.count, start + StoreLimits.reconcilePage)])
            let known = Set(try await sums(scope, .these(batch.map(\.id))).map(\.id))
            let books = try await ledger.books(of: batch.filter { !known.contains($0.id) })
            for books in books where books.consumed > .zero {
                let comparison = AccountComparison(books: books, recorded: .zero, records: 0)
                if page.comparisons.count < StoreLimits.reconcilePage {
                    page.comparisons.append(comparison)
                } else if comparison.state != .agrees {
                    page.omitted += 1
                }
            }
        }
    }

    /// Records of tests name the mesh and not which of its accounts paid, should the policy have
    /// named several in the period; so all of them are compared together.
    private func meshAccount(_ accounts: [AccountKey]) async throws -> AccountComparison? {
        let sum = try await sums(.mesh, .these([SubjectStore.meshUser])).first
        let books = try await ledger.books(of: accounts)
        guard
            var together = books.first
                ?? sum.map({ _ in
                    AccountBooks(account: key(.mesh, "*"), consumed: .zero)
                })
        else { return nil }
        for more in books.dropFirst() {
            together.account.id = "*"
            together.consumed += more.consumed
            together.held += more.held
            together.writtenOff += more.writtenOff
            together.restored += more.restored
        }
        return AccountComparison(
            books: together, recorded: sum?.cost ?? .zero, records: sum?.records ?? 0)
    }

    // MARK: Why

    private func explain(_ comparison: inout AccountComparison) async throws {
        let found = try await ledger.leases(of: comparison.books.account)
        var leases: [AccountComparison.Lease] = []
        // Records of several accounts' leases name the user's alone.
        let namesLeases = [.user, .mesh].contains(comparison.books.account.scope)
        for lease in found.leases.suffix(namesLeases ? StoreLimits.reconcileLeasesMax : 0) {
            let children = try await archive.sums(
                paidBy: lease.lease, limit: StoreLimits.reconcileRowsMax)
            leases.append(AccountComparison.Lease(consumed: lease.consumed, children: children))
        }
        comparison.explain(leases: leases, consumedByHolders: found.consumedByHolders)
    }
}
