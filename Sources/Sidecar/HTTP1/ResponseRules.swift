/// Which fields of an upstream's messages the client gets, whatever protocol it speaks.
enum ResponseRules {
    /// Fields that may be dropped; a head without any of them is copied in one piece.
    private static let dropped: UInt64 =
        FieldName.connection.bit | FieldName.keepAlive.bit | FieldName.proxyConnection.bit
        | FieldName.te.bit | FieldName.upgrade.bit | FieldName.transferEncoding.bit
        | FieldName.proxyAuthenticate.bit | FieldName.proxyAuthorization.bit
        | FieldName.http2Settings.bit | FieldName.weir.bit | FieldName.trailer.bit

    /// `namesFields` is the flag of `head`, taken out of the loop.
    @inline(__always)
    static func keeps(
        _ field: HTTPField, of head: HTTPHead, _ exchange: Exchange, keepsLength: Bool,
        namesFields: Bool
    ) -> Bool {
        if field.id == .other && !namesFields { return true }
        if field.id == .contentLength { return keepsLength }
        if exchange.removesResponseField(field.id) { return false }
        if dropped >> UInt64(field.id.rawValue) & 1 != 0 {
            return field.id == .weir && exchange.trustsUpstream
        }
        return !namesFields || !head.connectionNames(head.bytes(field.name))
    }

    static func keepsInformational(_ field: HTTPField, of head: HTTPHead) -> Bool {
        !field.id.isHopByHop && field.id != .weir && field.id != .contentLength
            && !(head.flags.contains(.namesFields)
                && head.connectionNames(head.bytes(field.name)))
    }

    static func keepsTrailer(_ field: HTTPField, _ exchange: Exchange) -> Bool {
        if field.id == .weir { return exchange.trustsUpstream }
        return !field.id.isHopByHop && !field.id.isProtected
    }
}
