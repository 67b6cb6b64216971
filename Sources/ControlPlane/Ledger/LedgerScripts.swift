// The rules of `AccountBook` in Lua: one account and one operation each, atomic in Redis. A test
// runs both on the same operations and compares every answer.
//
// Redis scripts count in doubles, exactly up to 2^53, and a script that fails keeps what it wrote
// before. So each script decides everything first and writes last; numbers go to Redis by HINCRBY
// with integer strings, made by `%.0f`, because `tostring` writes 10^15 as "1e+15".
//
// Keys, the same for all: the account, the leases of one incarnation in it, its holders, its limit.
//   account: granted, consumed, released, overrun, held; wanted and wanted_by while contended
//   leases:  n → "holder granted consumed released"
//   holders: INCARNATION:consumed, INCARNATION:held, INCARNATION:closed (the watermark)
//   limit:   limit, policy, max_lease; admin and user when they have set another one

enum LedgerScripts {
    static let prelude = """
        local function text(value) return string.format('%.0f', value) end
        local function number(key, field)
          return tonumber(redis.call('HGET', key, field) or '0')
        end
        -- For answers: beyond 2^53 a sum is exact in Redis, and not in a script.
        local function exact(key, field) return redis.call('HGET', key, field) or '0' end
        local function clock()
          local time = redis.call('TIME')
          return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
        end
        -- Before a report is noted among the living. Where the clock went back, all times go back
        -- with it, or those of before would keep everybody out, or in, until it is there again.
        local function hear(key, living, silence)
          local now, last = clock(), number(key, 'last')
          if now < last then
            local ahead = last - now
            local times = redis.call('ZRANGE', living, 0, -1, 'WITHSCORES')
            for i = 1, #times, 2 do
              redis.call('ZADD', living, text(tonumber(times[i + 1]) - ahead), times[i])
            end
            redis.call('HSET', key, 'since', text(number(key, 'since') - ahead),
              'before', text(number(key, 'before') - ahead))
          elseif now - last >= silence then
            redis.call('HSET', key, 'since', text(now), 'before', text(last))
          end
          redis.call('HSET', key, 'last', text(now))
        end
        local function unpackLease(packed)
          local holder, granted, consumed, released =
            string.match(packed, '^(%d+) (%d+) (%d+) (%d+)$')
          return {holder = holder, granted = tonumber(granted), consumed = tonumber(consumed),
            released = tonumber(released)}
        end
        local function packLease(lease)
          return lease.holder .. ' ' .. text(lease.granted) .. ' ' .. text(lease.consumed) .. ' '
            .. text(lease.released)
        end
        local function isClosed(lease) return lease.consumed + lease.released >= lease.granted end
        local function held(lease)
          return math.max(0, lease.granted - lease.consumed - lease.released)
        end
        local function overrun(lease)
          return math.max(0, lease.consumed + lease.released - lease.granted)
        end
        local function add(key, field, change)
          if change ~= 0 then redis.call('HINCRBY', key, field, text(change)) end
        end
        -- The limit in force: an administrator's before the policy's, and the user's own below it.
        local function limitOf(key)
          local fields = redis.call('HMGET', key, 'limit', 'admin', 'user', 'policy', 'max_lease')
          if not fields[1] then return nil end
          local limit = tonumber(fields[2] or fields[1])
          if fields[3] then limit = math.min(limit, tonumber(fields[3])) end
          return limit, tonumber(fields[4] or '0'), tonumber(fields[5] or '0')
        end

        """

    /// Grants one lease, or says why not (rules 1, 2, 3, 10).
    ///
    /// Arguments: incarnation, n, need, want, closed below, policy number, the period's start and
    /// end (end 0: none), lease time, how early the next period is granted, rows at most, how long
    /// the account is kept after its end, how long a recall lasts, of how many holders, the
    /// ceiling where the limit is only observed (-1: it holds), and for how many holders `maxLease`
    /// is withheld, because they may have leases that a failover lost; times in ms. Answer: status,
    /// granted, expires in, now, limit, consumed, own consumed, held.
    ///
    /// A contended account asks its other holders for what they do not need: a message on the
    /// recall channel each, not more often than every 50 ms, and the answers to their reports say
    /// it again.
    static let acquire = RedisScript(
        name: "acquire",
        source: prelude + """
            local account, leases, holders = KEYS[1], KEYS[2], KEYS[3]
            local incarnation, n = ARGV[1], ARGV[2]
            local need, want = tonumber(ARGV[3]), tonumber(ARGV[4])
            local start, finish = tonumber(ARGV[7]), tonumber(ARGV[8])
            local now = clock()
            local limit, policy, maxLease = limitOf(KEYS[4])
            if not limit then
              return {'unknown_account', '0', '0', text(now), '0', '0', '0', '0'}
            end

            local consumed, heldByAll = number(account, 'consumed'), number(account, 'held')
            local ownHeld = number(holders, incarnation .. ':held')
            local closedBefore = number(holders, incarnation .. ':closed')
            local closed = math.max(closedBefore, tonumber(ARGV[5]))

            local expires = tonumber(ARGV[9])
            if finish > 0 then
              if finish <= now or start - now > tonumber(ARGV[10]) then
                expires = nil
              else
                expires = math.min(math.max(0, start - now) + expires, finish - now)
              end
            end

            local observes = tonumber(ARGV[15]) >= 0
            -- Beyond 2^53 the product is not exact, and then the limit is less.
            local withheld = observes and 0 or math.min(limit, maxLease * tonumber(ARGV[16]))

            local status, amount, isNew = nil, 0, false
            local known = redis.call('HGET', leases, n)
            if known then
              local lease = unpackLease(known)
              if isClosed(lease) then
                status = 'gone'
              else
                status, amount = 'granted', lease.granted
              end
            elseif tonumber(n) < closed then
              status = 'gone'
            elseif tonumber(ARGV[6]) < policy then
              status = 'stale_policy'
            elseif not expires then
              status = 'wrong_period'
            elseif redis.call('HLEN', leases) >= tonumber(ARGV[11]) then
              status = 'unavailable'
            else
              if consumed + heldByAll + withheld + maxLease <= math.floor(limit / 2) then
                want = math.max(want, maxLease)
              end
              local ceiling, room = limit, math.max(maxLease, need) - ownHeld
              if observes then
                ceiling, room = tonumber(ARGV[15]), math.max(maxLease - ownHeld, need)
              end
              local grant = math.min(want, ceiling - consumed - heldByAll - withheld, room)
              if grant >= need then
                status, amount, isNew = 'granted', grant, true
              elseif consumed + need > ceiling then
                status = 'exhausted'
              else
                status = 'contended'
              end
            end

            local forget = {}
            if closed > closedBefore then
              local rows = redis.call('HGETALL', leases)
              for i = 1, #rows, 2 do
                if tonumber(rows[i]) < closed and isClosed(unpackLease(rows[i + 1])) then
                  forget[#forget + 1] = rows[i]
                end
              end
            end
            -- The other holders' open leases, of a bounded number of holders.
            local recalls = {}
            local wantedUntil = number(account, 'wanted')
            -- What only this holder's own share keeps back, nobody else can give.
            local isScarce = status == 'contended'
              and limit - consumed - heldByAll - withheld < need
            if isScarce and wantedUntil < now + tonumber(ARGV[13]) - 50 then
              local fields = redis.call('HGETALL', holders)
              for i = 1, #fields, 2 do
                local holder = string.match(fields[i], '^(%d+):held$')
                if holder and holder ~= incarnation and tonumber(fields[i + 1]) > 0
                  and #recalls < tonumber(ARGV[14]) then
                  local rows = redis.call('HGETALL', account .. ':leases:' .. holder)
                  local open = {}
                  for j = 1, #rows, 2 do
                    if held(unpackLease(rows[j + 1])) > 0 then
                      open[#open + 1] = '"' .. holder .. '.' .. rows[j] .. '"'
                    end
                  end
                  if #open > 0 then
                    recalls[#recalls + 1] = '{"holder":' .. holder .. ',"leases":['
                      .. table.concat(open, ',') .. ']}'
                  end
                end
              end
            end

            -- Everything is decided; writes begin.
            if closed > closedBefore then
              redis.call('HSET', holders, incarnation .. ':closed', text(closed))
              for _, row in ipairs(forget) do redis.call('HDEL', leases, row) end
            end
            if isNew then
              redis.call('HSET', leases, n, packLease(
                {holder = incarnation, granted = amount, consumed = 0, released = 0}))
              add(account, 'granted', amount)
              add(account, 'held', amount)
              add(holders, incarnation .. ':held', amount)
            end
            if isNew or closed > closedBefore then
              local keepUntil = math.max(finish, now) + tonumber(ARGV[12])
              for i = 1, 3 do redis.call('PEXPIREAT', KEYS[i], text(keepUntil)) end
            end
            if isNew and redis.call('HGET', account, 'wanted_by') == incarnation then
              redis.call('HDEL', account, 'wanted', 'wanted_by')
            end
            if isScarce then
              redis.call('HSET', account, 'wanted', text(now + tonumber(ARGV[13])),
                'wanted_by', incarnation)
              for _, recall in ipairs(recalls) do redis.call('PUBLISH', 'weir:recall', recall) end
            end
            if status ~= 'granted' then expires = 0 end
            return {status, text(amount), text(expires or 0), text(now), text(limit),
              exact(account, 'consumed'), exact(holders, incarnation .. ':consumed'),
              exact(account, 'held')}
            """,
        isIdempotent: true)

    /// Merges the counters of one incarnation's leases in one account (rules 3, 4, 5).
    ///
    /// Arguments: the leases' incarnation, who reports, the highest n that the reporter knew of
    /// (-1: all, for a predecessor's leases), the largest amount, how long from now an account is
    /// kept to which a lease comes back that a failover lost; then n, consumed, released and
    /// granted ("": not said) of each. Answer: now, limit (-1: unknown), consumed, own consumed,
    /// held, refused counters, open leases left, then two flat lists: the open leases that were not
    /// listed (n, consumed, released), and the numbers of those to give back because somebody else
    /// needs money.
    static let report = RedisScript(
        name: "report",
        source: prelude + """
            local account, leases, holders = KEYS[1], KEYS[2], KEYS[3]
            local incarnation, reporter = ARGV[1], ARGV[2]
            local highest, amountMax = tonumber(ARGV[3]), tonumber(ARGV[4])
            local now = clock()
            local before, after, order, listed, refused = {}, {}, {}, {}, 0
            local growth, isPutBack = 0, false
            local closed = number(holders, incarnation .. ':closed')
            for i = 6, #ARGV, 4 do
              local n, consumed, released = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
              local said = tonumber(ARGV[i + 3])
              listed[n] = true
              local lease = after[n]
              if not lease then
                local packed = redis.call('HGET', leases, n)
                if packed then
                  lease = unpackLease(packed)
                elseif said and tonumber(n) >= closed then
                  lease = {holder = reporter, granted = 0, consumed = 0, released = 0}
                end
              end
              local granted = lease and (said or lease.granted)
              if not lease or granted < 0 or granted > amountMax or consumed < 0
                or consumed > amountMax or released < 0 or released > granted then
                refused = refused + 1
              else
                if not after[n] then
                  local old = redis.call('HGET', leases, n)
                  before[n] = old and unpackLease(old)
                    or {holder = reporter, granted = 0, consumed = 0, released = 0}
                  order[#order + 1], after[n] = n, lease
                  isPutBack = isPutBack or not old
                end
                lease.granted = granted
                lease.consumed = math.max(lease.consumed, consumed)
                lease.released = math.max(lease.released, released)
                if tonumber(reporter) > tonumber(lease.holder) then lease.holder = reporter end
                growth = growth + lease.consumed
              end
            end
            -- HINCRBY fails beyond 2^63, and a failure here would come after the first write.
            if number(account, 'consumed') + growth > 2^62 then
              return redis.error_reply('ERR the account cannot count further')
            end

            for _, n in ipairs(order) do
              local old, new = before[n], after[n]
              local packed = packLease(new)
              if packed ~= packLease(old) then
                redis.call('HSET', leases, n, packed)
                add(account, 'granted', new.granted - old.granted)
                add(account, 'consumed', new.consumed - old.consumed)
                add(account, 'released', new.released - old.released)
                add(account, 'overrun', overrun(new) - overrun(old))
                add(account, 'held', held(new) - held(old))
                add(holders, old.holder .. ':consumed', -old.consumed)
                add(holders, old.holder .. ':held', -held(old))
                add(holders, new.holder .. ':consumed', new.consumed)
                add(holders, new.holder .. ':held', held(new))
              end
            end

            if isPutBack then
              for i = 1, 3 do
                redis.call('PEXPIREAT', KEYS[i], text(now + tonumber(ARGV[5])))
              end
            end

            local wanted = redis.call('HMGET', account, 'wanted', 'wanted_by')
            local isWanted = wanted[1] and tonumber(wanted[1]) > now and wanted[2] ~= reporter
            local open, unknown, recalls = 0, {}, {}
            local rows = redis.call('HGETALL', leases)
            for i = 1, #rows, 2 do
              local n, lease = rows[i], unpackLease(rows[i + 1])
              if not isClosed(lease) then
                open = open + 1
                if listed[n] then
                  if isWanted then recalls[#recalls + 1] = n end
                elseif lease.holder == reporter
                  and (incarnation ~= reporter or highest < 0 or tonumber(n) <= highest) then
                  unknown[#unknown + 1] = n
                  unknown[#unknown + 1] = text(lease.granted)
                  unknown[#unknown + 1] = text(lease.consumed)
                elseif incarnation ~= reporter and tonumber(lease.holder) < tonumber(reporter) then
                  -- A predecessor's lease that no report has brought over yet.
                  unknown[#unknown + 1] = n
                  unknown[#unknown + 1] = text(lease.granted)
                  unknown[#unknown + 1] = text(lease.consumed)
                end
              end
            end
            return {text(now), text(limitOf(KEYS[4]) or -1), exact(account, 'consumed'),
              exact(holders, reporter .. ':consumed'), exact(account, 'held'),
              refused, open, unknown, recalls}
            """,
        isIdempotent: true)

    /// States the limit by a policy version; an older version changes nothing (rule 1).
    /// Arguments: limit, policy number, `maxLease`. Answer: the limit in force, its policy number.
    static let setLimit = RedisScript(
        name: "set_limit",
        source: prelude + """
            local stored = redis.call('HMGET', KEYS[1], 'policy', 'limit', 'max_lease')
            local isSame = stored[1] == ARGV[2] and stored[2] == ARGV[1] and stored[3] == ARGV[3]
            if not isSame and tonumber(ARGV[2]) >= tonumber(stored[1] or '-1') then
              redis.call('HSET', KEYS[1], 'limit', ARGV[1], 'policy', ARGV[2],
                'max_lease', ARGV[3])
            end
            local limit, policy = limitOf(KEYS[1])
            return {text(limit), text(policy)}
            """,
        isIdempotent: true)

    /// Writes off what an incarnation that will not come back still holds in one account: all of it
    /// counts as spent. Arguments: incarnation. Answer: how much.
    static let writeOff = RedisScript(
        name: "write_off",
        source: prelude + """
            local account, leases, holders = KEYS[1], KEYS[2], KEYS[3]
            local rows = redis.call('HGETALL', leases)
            local total = 0
            for i = 1, #rows, 2 do
              local lease = unpackLease(rows[i + 1])
              local rest = held(lease)
              if rest > 0 then
                lease.consumed = lease.consumed + rest
                redis.call('HSET', leases, rows[i], packLease(lease))
                add(account, 'consumed', rest)
                add(account, 'held', -rest)
                add(account, 'written_off', rest)
                add(holders, lease.holder .. ':consumed', rest)
                add(holders, lease.holder .. ':held', -rest)
                total = total + rest
              end
            end
            return text(total)
            """,
        // Again it finds nothing left, and would answer 0 for what it did.
        isIdempotent: false)

    /// Raises what an account has consumed to what the archive knows, after the store lost its
    /// data. Arguments: the amount, when the account may go (ms of Unix time).
    static let restore = RedisScript(
        name: "restore",
        source: prelude + """
            local missing = tonumber(ARGV[1]) - number(KEYS[1], 'consumed')
            if missing <= 0 then return 0 end
            add(KEYS[1], 'consumed', missing)
            add(KEYS[1], 'restored', missing)
            redis.call('PEXPIREAT', KEYS[1], ARGV[2])
            return 1
            """,
        isIdempotent: true)
}
