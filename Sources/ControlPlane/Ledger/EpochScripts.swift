/// When the store may have forgotten something (rule 12).
enum EpochScripts {
    /// Begins an epoch where there is none, and where a server's data has another history than it
    /// had: after a failover, a restart or a restored copy, acknowledged writes may be missing.
    /// Numbers of epochs and incarnations grow with the clock, so that a store that lost something
    /// does not hand out a number a second time, as long as fewer than a thousand processes a
    /// second have joined.
    ///
    /// An epoch over data of before grants nothing until everybody who was heard shortly before it
    /// has reported again, and for a bounded time at most; one over nothing for all of that time.
    /// Whoever of those heard within a day has not reported, nor anybody that adopted it, is
    /// missing from then on. Who said before the silence that it ends has no part in what was lost.
    ///
    /// Where the clock went back behind the beginning of the epoch, the epoch begins now, or it
    /// would grant nothing until the clock is there again.
    ///
    /// Keys: epoch, last incarnation, histories, live, hearing, missing. Arguments: prefix of keys,
    /// how long a new epoch grants nothing, in ms (0 for a mesh without a past), after how long of
    /// silence nobody waits for a holder; then the histories, none where they were not looked at.
    /// Answer: epoch, ms until it grants, whether what was spent before is in the accounts again.
    static let begin = RedisScript(
        name: "begin",
        source: LedgerScripts.prelude + """
            local now = clock()
            local epoch = redis.call('HGET', KEYS[1], 'number')
            local known, isSame = {}, true
            for _, history in ipairs(redis.call('SMEMBERS', KEYS[3])) do known[history] = true end
            local isFirst = next(known) == nil
            for i = 4, #ARGV do
              if not known[ARGV[i]] then isSame = false end
            end
            -- Milliseconds since 2025-01-01.
            local fresh = now - 1735689600000
            if not epoch then
              epoch = text(fresh)
              redis.call('HSET', KEYS[1], 'number', epoch, 'began', text(now), 'grants_from',
                text(now + tonumber(ARGV[2])), 'restored', ARGV[2] == '0' and '1' or '0')
              redis.call('SET', KEYS[2], epoch)
            elseif not isSame and not isFirst then
              local awaitsFrom = number(KEYS[5], 'last') - tonumber(ARGV[3])
              local missing = {}
              local lives = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
              for i = 1, #lives, 2 do
                local role, adopter, writtenOff, state = unpack(redis.call('HMGET',
                  ARGV[1] .. 'incarnation:' .. lives[i], 'role', 'adopted_by', 'written_off',
                  'state'))
                local hasEnded = state == 'draining' and tonumber(lives[i + 1]) < awaitsFrom
                if role == 'gateway' and not adopter and not writtenOff and not hasEnded
                  and #missing < \(StoreLimits.missingMax) then
                  missing[#missing + 1] = lives[i]
                end
              end
              epoch = text(math.max(fresh, tonumber(epoch) + 1))
              redis.call('HSET', KEYS[1], 'number', epoch, 'began', text(now), 'grants_from',
                text(now + tonumber(ARGV[2])), 'awaits_from', text(awaitsFrom))
              if #missing > 0 then redis.call('SADD', KEYS[6], unpack(missing)) end
              if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(epoch) then
                redis.call('SET', KEYS[2], epoch)
              end
            end
            if not isSame then
              redis.call('DEL', KEYS[3])
              for i = 4, #ARGV do redis.call('SADD', KEYS[3], ARGV[i]) end
            end
            local ahead = number(KEYS[1], 'began') - now
            if ahead > 0 then
              for _, field in ipairs({'began', 'grants_from', 'awaits_from'}) do
                if redis.call('HEXISTS', KEYS[1], field) == 1 then
                  redis.call('HSET', KEYS[1], field, text(number(KEYS[1], field) - ahead))
                end
              end
            end
            local from, awaits = unpack(redis.call('HMGET', KEYS[1], 'grants_from', 'awaits_from'))
            if tonumber(from) > now and awaits then
              local isAwaited = false
              for _, life in ipairs(redis.call('SMEMBERS', KEYS[6])) do
                local heard = tonumber(redis.call('ZSCORE', KEYS[4], life) or '0')
                isAwaited = isAwaited or heard >= tonumber(awaits)
              end
              if not isAwaited then
                from = now
                redis.call('HSET', KEYS[1], 'grants_from', text(now))
              end
            end
            return {epoch, text(math.max(0, from - now)), redis.call('HGET', KEYS[1], 'restored')}
            """,
        isIdempotent: true)

    /// A holder has listed all that it has, in this epoch; in another one it says it again. Keys:
    /// epoch, missing. Arguments: incarnation, the epoch.
    static let heard = RedisScript(
        name: "heard",
        source: """
            if redis.call('HGET', KEYS[1], 'number') ~= ARGV[2] then return 0 end
            return redis.call('SREM', KEYS[2], ARGV[1])
            """,
        isIdempotent: true)
}
