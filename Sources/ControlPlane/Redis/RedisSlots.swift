/// Which node of a cluster serves which keys. Pure.
///
/// https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
package enum RedisSlots {
    package static let count = 16_384

    /// CRC-16/XMODEM of the key, or of what stands between its first "{" and the "}" after it.
    package static func slot(of key: String) -> Int {
        var bytes = Array(key.utf8)[...]
        if let open = bytes.firstIndex(of: UInt8(ascii: "{")),
            let close = bytes[(open + 1)...].firstIndex(of: UInt8(ascii: "}")), close > open + 1
        {
            bytes = bytes[(open + 1)..<close]
        }
        var crc: UInt16 = 0
        for byte in bytes {
            crc ^= UInt16(byte) << 8
            for _ in 0..<8 { crc = crc & 0x8000 != 0 ? (crc << 1) ^ 0x1021 : crc << 1 }
        }
        return Int(crc) % count
    }

    /// The key that decides where a command goes; `nil` for one that any node serves.
    static func routingKey(of arguments: [String]) -> String? {
        guard let name = arguments.first else { return nil }
        switch name {
        case "EVALSHA", "EVAL":
            return arguments.count > 3 && arguments[2] != "0" ? arguments[3] : nil
        case "PING", "ECHO", "SCRIPT", "INFO", "CONFIG", "TIME", "WAIT", "PUBLISH", "CLUSTER":
            return nil
        default: return arguments.count > 1 ? arguments[1] : nil
        }
    }

    /// The primaries' slots out of CLUSTER SLOTS; `nil` for an answer of another shape. `asked`
    /// answered, and stands for a node that does not know its own address yet.
    static func owners(
        _ reply: RedisReply, asked: RedisURL.Address
    ) -> [RedisURL.Address?]? {
        guard let ranges = reply.array else { return nil }
        var owners = [RedisURL.Address?](repeating: nil, count: count)
        for range in ranges {
            guard let parts = range.array, parts.count >= 3, let first = parts[0].integer,
                let last = parts[1].integer, first >= 0, first <= last, last < count,
                let node = parts[2].array, node.count >= 2, let port = node[1].integer,
                let port = UInt16(exactly: port), port > 0
            else { return nil }
            let host = node[0].text.flatMap { $0.isEmpty || $0 == "?" ? nil : $0 } ?? asked.host
            guard let host else { return nil }
            for slot in Int(first)...Int(last) { owners[slot] = .tcp(host: host, port: port) }
        }
        return Set(owners.compactMap { $0 }).count <= StoreLimits.redisPrimariesMax ? owners : nil
    }
}

/// What an error of a cluster's node asks for.
enum RedisRedirection: Hashable {
    /// The slot lives there from now on.
    case moved(slot: Int, RedisURL.Address)
    /// This once, the slot's new node serves it: it is on its way there.
    case ask(RedisURL.Address)
    /// Not yet: the slot is half here and half there, or its node has no successor yet.
    case again

    /// `nil`: this is the answer. `asked` said it, and stands for a host that is left out.
    init?(_ text: String, asked: RedisURL.Address) {
        let words = text.split(separator: " ")
        switch words.first {
        case "MOVED", "ASK":
            guard words.count >= 3, let slot = Int(words[1]), (0..<RedisSlots.count).contains(slot),
                let colon = words[2].lastIndex(of: ":"),
                let port = UInt16(words[2][words[2].index(after: colon)...]), port > 0
            else { return nil }
            let named = String(words[2][..<colon])
            guard let host = named.isEmpty ? asked.host : named else { return nil }
            let address = RedisURL.Address.tcp(host: host, port: port)
            self = words[0] == "ASK" ? .ask(address) : .moved(slot: slot, address)
        case "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN": self = .again
        default:
            // A script names one key and reads another one that has left already. Scripts decide
            // first and write last, so this one did nothing, or nothing that matters twice.
            guard text.contains("attempted to access a non local key") else { return nil }
            self = .again
        }
    }
}
