# shellcheck shell=bash disable=SC2154 # port, run and others belong to scripts/demo
# What the mesh does for its users and operators, shown one after the other on a running demo: each
# stop asks for something as a user would, shows what came back, and fails when it is not what the
# documentation says. Sourced by scripts/demo, whose variables and functions it uses.

tour() {
    tour_tokens
    tour_types_and_tiers
    tour_partial_result
    tour_fallback_and_breaker
    tour_downgrade_and_budget
    tour_preferences
    tour_idempotency
    tour_events
    tour_openai
    tour_keys
    tour_figures
    say ""
    say "The tour is over: $tour_stops stops, all as documented."
}

tour_stops=0
declare -A tour_token=()

tour_tokens() {
    local tier
    for tier in free premium enterprise; do
        tour_token[$tier]=$(mint --user "tour-$tier" --tier "$tier")
    done
    tour_token[operator]=$(mint --user tour-operator --tier premium --role operator)
    tour_token[admin]=$(mint --user tour-admin --tier premium --role admin)
}

# stop TITLE: what follows belongs to it.
stop() {
    tour_stops=$((tour_stops + 1))
    say ""
    say "== $tour_stops. $1"
}

# ask TOKEN METHOD PATH [BODY [CURL-ARGUMENT…]]: the answer is in $run/tour.json, its head in
# $run/tour.head, its status in $tour_status.
ask() {
    local token=$1 method=$2 path=$3 body=${4:-}
    shift $(($# < 4 ? $# : 4))
    local arguments=(--silent --show-error --max-time 60 --request "$method"
        --output "$run/tour.json" --dump-header "$run/tour.head" --write-out '%{http_code}')
    if [[ -n $token ]]; then arguments+=(--header "Authorization: Bearer $token"); fi
    if [[ -n $body ]]; then
        arguments+=(--header "Content-Type: application/json" --data "$body")
    fi
    tour_status=$(curl "${arguments[@]}" "$@" "http://127.0.0.1:${port[gateway]}$path") ||
        die "the gateway did not answer $method $path"
}

# answered STATUS [JQ-FILTER]: what must be true of the answer.
answered() {
    if [[ $tour_status != "$1" ]]; then
        jq . "$run/tour.json" >&2 2>/dev/null || cat "$run/tour.json" >&2
        die "status $tour_status, not $1"
    fi
    [[ $# -lt 2 ]] || holds "$2"
}

# holds JQ-FILTER: true of the last answer.
holds() {
    jq --exit-status "$1" "$run/tour.json" >/dev/null && return 0
    jq . "$run/tour.json" >&2
    die "not true of the answer: $1"
}

# show JQ-FILTER: lines about the last answer.
show() { jq --raw-output "$1" "$run/tour.json" | sed 's/^/   /' | cut -c 1-150; }

head_field() { sed -n "s/^$1: *//Ip" "$run/tour.head" | tr -d '\r' | tail -n 1; }

fault() {
    curl --silent --fail --max-time 5 --output /dev/null --request PUT \
        "http://127.0.0.1:${port[$1-upstream]}/__fault" --data "$2" ||
        die "$1 does not take the order $2"
}

# until_true SECONDS JQ-FILTER ask-arguments…: asks again until the answer is so.
until_true() {
    local end=$((SECONDS + $1)) filter=$2
    shift 2
    while ask "$@"; do
        if jq --exit-status "$filter" "$run/tour.json" >/dev/null 2>&1; then return 0; fi
        ((SECONDS < end)) || {
            jq . "$run/tour.json" >&2
            die "not true in time: $filter"
        }
        sleep 0.2
    done
}

STEPS='.steps[] | select(.status != "skipped") | "\(.name): \(.agent) \(.status), $\(.cost_usd // "0")"'
NEWS='{"analysis_type":"news_analysis","data":{"text":"Apple stock surged 5% after strong quarterly earnings report"}}'

# The data of each request type.
tour_body() {
    local positions='[{"symbol":"AAPL","quantity":10,"price":190.5,"returns":[0.01,-0.02,0.015,0.003,-0.007]},{"symbol":"MSFT","quantity":5,"price":410,"returns":[0.004,0.01,-0.012,0.006,0.002]}]'
    local history
    history=$(jq -nc '[range(40) | {t: "2026-\(9 + (. / 30 | floor) | tostring | if length < 2 then "0" + . else . end)-\(. % 30 + 1 | tostring | if length < 2 then "0" + . else . end)", close: (180 + . * 0.4)}]')
    case $1 in
        news_analysis) say "$NEWS" ;;
        options_recommendation) say '{"analysis_type":"options_recommendation","data":{"symbol":"AAPL","outlook":"bullish","risk_tolerance":"moderate","horizon_days":30}}' ;;
        price_prediction) say '{"analysis_type":"price_prediction","data":{"symbol":"AAPL","horizon_days":5,"history":'"$history"'}}' ;;
        portfolio_analysis) say '{"analysis_type":"portfolio_analysis","data":{"positions":'"$positions"',"news":"Shares rose after good earnings"}}' ;;
        comprehensive_analysis) say '{"analysis_type":"comprehensive_analysis","data":{"text":"Shares rose after good earnings","symbol":"AAPL","outlook":"bullish","risk_tolerance":"moderate","horizon_days":5,"history":'"$history"',"positions":'"$positions"',"news":"Shares rose after good earnings"}}' ;;
    esac
}

TYPES=(news_analysis options_recommendation price_prediction portfolio_analysis comprehensive_analysis)

tour_types_and_tiers() {
    local type tier
    stop "Five request types for three tiers"
    for type in "${TYPES[@]}"; do
        for tier in free premium enterprise; do
            ask "${tour_token[$tier]}" POST /analyze "$(tour_body "$type")"
            answered 200 '.status == "complete"'
            say "   $type, $tier: $(jq -r '[.steps[] | select(.status == "ok") | .agent] | join(" → ")' \
                "$run/tour.json"), \$$(jq -r .cost.total_usd "$run/tour.json")"
        done
    done
}

tour_partial_result() {
    stop "An optional step fails: a partial result, and nothing else is lost"
    fault llama2-7b '{"kind":"fail","arg":503,"times":1}'
    ask "${tour_token[premium]}" POST /analyze "$(tour_body portfolio_analysis)"
    answered 200 '.status == "partial"'
    show "$STEPS"
}

tour_fallback_and_breaker() {

    stop "An agent fails: fallback along the chain, and a breaker that opens"
    fault gpt4-turbo '{"kind":"fail","arg":503}'
    for _ in 1 2 3 4 5 6; do
        ask "${tour_token[enterprise]}" POST /analyze "$NEWS"
        answered 200 '.steps[1].fallback.from == "gpt4-turbo"'
    done
    show '.steps[1] | "\(.name): \(.agent), fell back from \(.fallback.from): \(.fallback.reason)"'
    say "   weir-decision: $(head_field weir-decision)"
    holds '.steps[1].fallback.reason == "circuit_open"'
    until_true 15 '[.agents[] | select(.agent == "gpt4-turbo") | .. | objects | .state? // empty] | any(. == "open")' \
        "${tour_token[operator]}" GET /stats
    say "   the metric: $(curl --silent --max-time 5 "http://127.0.0.1:${port[gpt4-turbo-admin]}/metrics" |
        grep '^circuit_breaker_state{')"
    fault gpt4-turbo '{"kind":"none"}'
    say "   and when the agent is well again, one probe closes it:"
    until_true 30 '.steps[1].agent == "gpt4-turbo"' "${tour_token[enterprise]}" POST /analyze "$NEWS"
    show "$STEPS"
}

tour_downgrade_and_budget() {
    local token spent limit
    stop "A budget that is nearly spent: the cheaper agent first, and then no more"
    token=$(mint --user tour-thrifty --tier enterprise)
    ask "$token" POST /analyze "$NEWS"
    answered 200 '.steps[1].agent == "gpt4-turbo"'
    spent=$(jq -r .cost.total_usd "$run/tour.json")
    limit=$(jq -n --arg spent "$spent" '($spent | tonumber) / 0.85 | . * 1e9 | floor / 1e9')
    # A decimal string: jq would write small numbers with an exponent.
    limit=$(printf '%.9f' "$limit")
    ask "${tour_token[admin]}" POST /budget/update \
        "{\"user\":\"tour-thrifty\",\"monthly_limit_usd\":\"$limit\",\"reason\":\"tour\"}"
    answered 200
    until_true 15 '.steps[1].downgrade.from? == "gpt4-turbo"' "$token" POST /analyze "$NEWS"
    show '.steps[1] | "\(.name): \(.agent), downgraded from \(.downgrade.from): \(.downgrade.reason)"'
    ask "$token" POST /budget/update '{"monthly_limit_usd":"0.000001"}'
    answered 200
    until_true 15 '.reason? == "budget_exhausted"' "$token" POST /analyze "$NEWS"
    answered 402
    show '"\(.status) \(.reason): \(.account), more from \(.resets_at)"'
}

tour_preferences() {
    stop "Preferences: the own choice of agents, within the tier"
    ask "${tour_token[enterprise]}" POST /agents/preferences '{"prefer":{"explanation":"llama2-7b"}}'
    answered 200
    until_true 15 '.steps[1].agent == "llama2-7b"' "${tour_token[enterprise]}" POST /analyze "$NEWS"
    show "$STEPS"
    ask "${tour_token[free]}" POST /agents/preferences '{"prefer":{"explanation":"gpt4-turbo"}}'
    answered 422 '.errors | length > 0'
    show '.errors[] | "\(.pointer) \(.detail)"'
}

tour_idempotency() {
    local key first
    stop "The same request twice under one Idempotency-Key: paid once"
    key=tour-$$
    ask "${tour_token[premium]}" POST /analyze "$NEWS" --header "Idempotency-Key: $key"
    answered 200
    first=$(jq -r .id "$run/tour.json")
    ask "${tour_token[premium]}" POST /analyze "$NEWS" --header "Idempotency-Key: $key"
    answered 200 ".id == \"$first\""
    say "   replayed $first, weir-cost-usd: $(head_field weir-cost-usd)"
}

tour_events() {
    stop "The same as a stream of events"
    curl --silent --no-buffer --max-time 60 --output "$run/tour.events" \
        --header "Authorization: Bearer ${tour_token[premium]}" \
        --header "Content-Type: application/json" --header "Accept: text/event-stream" \
        --data "$NEWS" "http://127.0.0.1:${port[gateway]}/analyze" || die "no events"
    sed -n 's/^event: *//p' "$run/tour.events" | uniq --count | sed 's/^/   /'
    grep --quiet '^event: *done' "$run/tour.events" || die "the stream has no end"
}

tour_openai() {
    stop "Any OpenAI client: models, and a chat that streams"
    ask "${tour_token[premium]}" GET /v1/models
    answered 200 '.data | length > 0'
    show '[.data[].id] | join(", ")'
    curl --silent --no-buffer --max-time 60 --output "$run/tour.chat" \
        --header "Authorization: Bearer ${tour_token[premium]}" \
        --header "Content-Type: application/json" \
        --data '{"model":"llama","stream":true,"max_tokens":60,"messages":[{"role":"user","content":"Why do shares rise on good earnings?"}]}' \
        "http://127.0.0.1:${port[gateway]}/v1/chat/completions" || die "no chat"
    sed -n 's/^data: *{/{/p' "$run/tour.chat" |
        jq --raw-output --join-output '.choices[0].delta.content // empty' | fold -s -w 100 |
        sed 's/^/   /'
    say ""
    grep --quiet '^data: *\[DONE\]' "$run/tour.chat" || die "the chat has no end"
}

tour_keys() {
    local made text id
    stop "An API key with a budget of its own: made, used, revoked"
    made=$(weir key create --user tour-robot --tier free --budget 0.01 2>&1) || die "no key"
    text=$(grep -o 'weir_[A-Za-z0-9_-]*' <<<"$made" | head -n 1)
    id=$(sed -n 's/^key \([0-9a-f]*\).*/\1/p' <<<"$made" | head -n 1)
    ask "$text" POST /analyze "$NEWS"
    answered 200 '.status == "complete"'
    show '"served with the key, $\(.cost.total_usd)"'
    weir key revoke "$id" >/dev/null || die "the key cannot be revoked"
    until_true 15 '.reason? == "unauthenticated"' "$text" POST /analyze "$NEWS"
    say "   revoked: $tour_status $(jq -r .reason "$run/tour.json")"
}

tour_figures() {
    stop "What it cost, how the agents did, and what would be cheaper"
    until_true 15 '.total_usd // .total.cost_usd // .cost_usd | tonumber > 0' \
        "${tour_token[enterprise]}" GET '/cost/breakdown?by=agent'
    show 'tojson'
    ask "${tour_token[enterprise]}" GET /cost/suggestions
    answered 200
    show 'tojson'
    ask "${tour_token[premium]}" GET '/agents/performance/finbert?window=24h'
    answered 200
    show 'tojson'
    ask "${tour_token[operator]}" POST /agents/test '{"agent":"finbert"}'
    answered 200
    show 'tojson'
    ask "" GET /agents/health
    answered 200 '.agents | length == 5'
    show '.agents[] | tojson'
    ask "${tour_token[operator]}" GET /stats
    answered 200 '.health.system_health_score > 0 and .requests.total > 0'
    holds '.fallbacks.total > 0 and .downgrades.total > 0 and .requests.partial > 0'
    show '"health score \(.health.system_health_score), \(.requests.total) requests in \(.requests.window_seconds) s, fallbacks \(.fallbacks.total), downgrades \(.downgrades.total), partial \(.requests.partial)"'
    say "   and the audit trail:"
    weir audit list --limit 3 | sed 's/^/   /' | cut -c 1-150
}
