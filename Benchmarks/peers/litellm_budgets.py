"""What LiteLLM's proxy needs to enforce budgets without PostgreSQL, of its own parts."""

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.hooks.proxy_track_cost_callback import ProxyDBLogger

# Settles what was reserved. The proxy registers it by itself only where it has a database, and
# without it every budget ends at the sum of the worst cases.
settlement = ProxyDBLogger()


async def user_api_key_auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Users and their budgets by their keys: `sk-BUDGET_IN_NANO_USD-NAME`. It costs nothing to
    check and asks no table, which is in LiteLLM's favour."""
    kind, budget, name = api_key.split("-", 2)
    if kind != "sk":
        raise ValueError("no key of this benchmark")
    return UserAPIKeyAuth(api_key=api_key, key_alias=name, max_budget=int(budget) / 1e9)
