import CPQ

/// Where PostgreSQL is and how it is reached. The URL may hold a password, so this type describes
/// itself without it.
package struct PostgreSQLSettings: Hashable, Sendable, CustomStringConvertible {
    /// Connections of one control plane.
    package static let defaultConnections = 20
    package static let connectionsRange = 2...200

    let url: String
    package let connections: Int

    /// `nil` when libpq cannot read the URL: `postgresql://user:password@host:port/database`, with
    /// libpq's parameters (`?sslmode=verify-full&sslrootcert=…`, several hosts, a socket's folder
    /// as `host`).
    package init?(url: String, connections: Int = Self.defaultConnections) {
        guard ["postgresql://", "postgres://"].contains(where: url.hasPrefix),
            !url.utf8.contains(0), Self.connectionsRange.contains(connections)
        else { return nil }
        var message: UnsafeMutablePointer<CChar>?
        // SAFETY: both results are freed below; libpq copies what it keeps of the text.
        let options = PQconninfoParse(url, &message)
        PQfreemem(message)
        guard let options else { return nil }
        PQconninfoFree(options)
        self.url = url
        self.connections = connections
    }

    package var description: String { "PostgreSQL, at most \(connections) connections" }

    /// What libpq is told, the URL's own words after our defaults, so that they win.
    var parameters: [(keyword: String, value: String)] {
        [
            ("connect_timeout", String(StoreLimits.databaseConnectSeconds)),
            // A server or a network that is gone is noticed within seconds.
            ("keepalives_idle", "10"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", String(StoreLimits.databaseStatementMilliseconds)),
            // Of several hosts, the one that takes writes.
            ("target_session_attrs", "read-write"),
            ("fallback_application_name", "weir-control-plane"),
            ("dbname", url), ("client_encoding", "UTF8"),
        ]
    }
}
