// Incarnations, adoption and the finals of children: the rules of `IncarnationBook` in Lua. All
// keys share the mesh's hash tag.

enum MeshScripts {
    /// Joins: a number that is never used twice, and at most one adoption (rule 8).
    ///
    /// A predecessor that was adopted by an incarnation which never spoke was adopted by an answer
    /// that got lost: then that one is adopted in turn. Once an adopter has spoken, nobody else is.
    ///
    /// Where a new epoch misses the predecessor, it misses whoever adopts it.
    ///
    /// Keys: last incarnation, epoch, hearing, missing. Arguments: prefix of keys, predecessor (its
    /// proof was checked; or ""), then field and value pairs of the new row. Answer: incarnation,
    /// epoch, adopted or "".
    static let join = RedisScript(
        name: "join",
        source: LedgerScripts.prelude + """
            local prefix, adopted = ARGV[1], ARGV[2]
            local epoch = redis.call('HGET', KEYS[2], 'number')
            local last = redis.call('GET', KEYS[1])
            if not epoch or not last then return redis.error_reply('ERR no epoch') end
            if adopted ~= '' then
              local row = prefix .. 'incarnation:' .. adopted
              if redis.call('EXISTS', row) == 0 or redis.call('HEXISTS', row, 'written_off') == 1
              then adopted = '' end
            end
            while adopted ~= '' do
              local by = redis.call('HGET', prefix .. 'incarnation:' .. adopted, 'adopted_by')
              if not by then break end
              if redis.call('HGET', prefix .. 'incarnation:' .. by, 'seen') then
                adopted = ''
              else
                adopted = by
              end
            end

            -- By the clock, so that a store that lost the last numbers in a failover uses none of
            -- them twice: ms since 2025-01-01, ahead of all that were handed out.
            local incarnation = text(math.max(tonumber(last) + 1, clock() - 1735689600000))
            redis.call('SET', KEYS[1], incarnation)
            local row = prefix .. 'incarnation:' .. incarnation
            redis.call('HSET', row, 'joined_at', text(clock()))
            for i = 3, #ARGV, 2 do redis.call('HSET', row, ARGV[i], ARGV[i + 1]) end
            if adopted ~= '' then
              redis.call('HSET', prefix .. 'incarnation:' .. adopted, 'adopted_by', incarnation)
              if redis.call('SREM', KEYS[4], adopted) == 1 then
                redis.call('SADD', KEYS[4], incarnation)
              end
              local set = prefix .. 'speaks_for:' .. incarnation
              redis.call('SADD', set, adopted)
              -- Of its own predecessors only those that have something open still matter.
              for _, earlier in ipairs(redis.call('SMEMBERS',
                  prefix .. 'speaks_for:' .. adopted)) do
                if redis.call('EXISTS', prefix .. 'accounts:' .. earlier) == 1
                  or redis.call('EXISTS', prefix .. 'finals:' .. earlier) == 1 then
                  redis.call('SADD', set, earlier)
                end
              end
            end
            hear(KEYS[3], prefix .. 'live', \(StoreLimits.endpointFreshMilliseconds))
            -- Gateways look for agents' sidecars from their first moment on.
            redis.call('ZADD', prefix .. 'live', text(clock()), incarnation)
            redis.call('PUBLISH', 'weir:endpoints', incarnation)
            return {incarnation, epoch, adopted}
            """,
        isIdempotent: false)

    /// Notes that an incarnation has spoken; 0 when it was adopted before it did. Key: its row.
    static let touch = RedisScript(
        name: "touch",
        source: """
            if redis.call('EXISTS', KEYS[1]) == 0
              or redis.call('HEXISTS', KEYS[1], 'written_off') == 1
              or redis.call('HEXISTS', KEYS[1], 'adopted_by') == 1 then return 0 end
            redis.call('HSET', KEYS[1], 'seen', '1')
            return 1
            """,
        isIdempotent: true)

    /// Keeps finals for one parent, each by maximum, until it acknowledges them. Key: the mailbox.
    /// Arguments: seconds to keep, then child's name and consumed of each.
    static let finals = RedisScript(
        name: "finals",
        source: LedgerScripts.prelude + """
            for i = 2, #ARGV, 2 do
              local known = redis.call('HGET', KEYS[1], ARGV[i])
              if not known or tonumber(known) < tonumber(ARGV[i + 1]) then
                redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
              end
            end
            redis.call('EXPIRE', KEYS[1], ARGV[1])
            return 1
            """,
        isIdempotent: true)

    /// Leaves parents' questions for the newest lives that adopted the audiences' logs, unless the
    /// final is here already. Nothing is lost if one is: parents repeat them.
    ///
    /// Key: any of the mesh. Arguments: prefix of keys, how many wait for one life at most, seconds
    /// to keep; then parent, child's name and audience of each. Answer: parent and name of those
    /// whose audience, or a successor of it, was written off.
    static let ask = RedisScript(
        name: "ask",
        source: """
            local prefix, most, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
            local asked, writtenOff, lost = {}, {}, {}
            for i = 4, #ARGV, 3 do
              local parent, name, life = ARGV[i], ARGV[i + 1], ARGV[i + 2]
              if redis.call('HEXISTS', prefix .. 'finals:' .. parent, name) == 0 then
                if not asked[life] then
                  local newest = life
                  while newest do
                    local row = prefix .. 'incarnation:' .. newest
                    asked[life] = newest
                    if redis.call('HEXISTS', row, 'written_off') == 1 then
                      writtenOff[life] = true
                    end
                    newest = redis.call('HGET', row, 'adopted_by')
                  end
                end
                local box = prefix .. 'inquiries:' .. asked[life]
                if writtenOff[life] then
                  lost[#lost + 1] = parent .. '.' .. name
                elseif redis.call('HLEN', box) < most then
                  redis.call('HSET', box, parent .. '.' .. name, life)
                  redis.call('EXPIRE', box, keep)
                end
              end
            end
            return lost
            """,
        isIdempotent: true)

    /// Notes that an incarnation is written off, before its accounts are. One that was heard lately
    /// may be spending; only when somebody adopted it is that harmless, because it is granted
    /// nothing more. Keys: its row, the living, the missing. Arguments: incarnation, since when it
    /// must have been silent (ms). Answer: "ok", "unknown" or "alive".
    static let writeOff = RedisScript(
        name: "write_off_life",
        source: """
            if redis.call('EXISTS', KEYS[1]) == 0 then return 'unknown' end
            local heard = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
            local time = redis.call('TIME')
            local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
            if now - heard < tonumber(ARGV[2])
              and redis.call('HEXISTS', KEYS[1], 'adopted_by') == 0 then return 'alive' end
            redis.call('HSET', KEYS[1], 'written_off', string.format('%.0f', now))
            redis.call('SREM', KEYS[3], ARGV[1])
            return 'ok'
            """,
        isIdempotent: true)

    /// Forgets that an incarnation has leases in an account, unless it asked for one meanwhile.
    /// Key: the index. Arguments: account, the token that its entry had.
    static let unindex = RedisScript(
        name: "unindex",
        source: """
            if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
              return redis.call('HDEL', KEYS[1], ARGV[1])
            end
            return 0
            """,
        isIdempotent: true)
}
