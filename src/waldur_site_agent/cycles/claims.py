"""Which accounts belong to which resources in Waldur, of any offering that the token sees.

Lists may be a moment old. A name that was given just now may be missing from them, so before an
account that nobody seems to have is adopted, deleted or offered for import, the resources without
a name are read by themselves. A resource that is terminated may still be in them, so before an
order fails because of a name, whoever seems to have it is read by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.unreadable import stand_ins
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.orders import OrderType, ResourceState
from waldur_site_agent.planning.orders import claims_of
from waldur_site_agent.waldur import NotFoundError, concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.order_gathering import Resources
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.orders import Claims, OrderInHand


def claims_on(
    site: Site, hands: Sequence[OrderInHand], resources: Resources, state: BackendState
) -> Claims:
    """Who carries which name in Waldur.

    The offering's own resources are known. For an account that exists and that an order might
    adopt or delete, every offering that the token can see is asked too: another one may share
    the backend.

    Raises:
        TemporaryError: an answer did not come; to guess here could give one project's account
            to another.
    """
    doubtful = {name for hand in hands for name in _doubtful_names(hand, state)}
    known = [*resources.own.values(), *resources.listed]
    everywhere = [*known, *_namesakes_of(site, doubtful)]
    nobodys = {n for hand in hands if not hand.resource.account for n in _names_of(hand)}
    if doubtful & nobodys - {resource.account for resource in everywhere}:
        everywhere += named_meanwhile(site, resources.listed)
    alive = _alive(everywhere)
    taken = {resource.account for resource in alive}
    return claims_of([*alive, *_used_since_the_order(site, hands, taken)])


def waiting_for_list(
    hands: Iterable[OrderInHand], resources: Resources, state: BackendState
) -> Iterator[OrderInHand]:
    """The hands; while the list is from before some of their resources, no doubtful name is given.

    Whoever was made between them and has a name would be missing from such a list, too.
    """
    for hand in hands:
        if not resources.unlisted or not (_has_a_choice(hand) or _may_adopt(hand, state)):
            yield hand
            continue
        missing = resources.unlisted[0]
        problem = TemporaryError(
            f"{hand.resource.name}: no account name is chosen yet, because Waldur's list of "
            f'resources does not show "{missing.name}" ({missing.uuid}) yet, and so may lack '
            "others that have the name already; tried again next time"
        )
        yield replace(hand, problem=problem)


def claims_confirmed(
    site: Site, hands: Iterable[OrderInHand], resources: Resources, state: BackendState
) -> Claims:
    """As :func:`claims_on`; whoever has a name that an order wants is read by itself.

    Raises:
        TemporaryError: an answer did not come.
    """
    hands = tuple(hands)
    names = {name for hand in hands for name in (hand.resource.account, *_names_of(hand))} - {""}
    listed = {
        resource.uuid
        for resource in (*resources.listed, *_namesakes_of(site, names & state.resources.keys()))
        if resource.account in names
    }
    claimants = _read(site, listed - resources.own.keys())
    return claims_of(_alive([*resources.own.values(), *claimants]))


def namesakes(site: Site, name: str) -> tuple[Resource, ...]:
    """Resources of any offering that carry the name, in the spellings that people use."""
    listings = [site.waldur.resources_named(spelling) for spelling in (name, name.upper())]
    return tuple(
        resource
        for listing in listings
        for resource in (
            *listing.require_every_page(f'resources named "{name}"'),
            *stand_ins(listing.unreadable, name),
        )
    )


def named_meanwhile(site: Site, listed: Iterable[Resource]) -> list[Resource]:
    """Read by themselves the resources that a list shows without a name, and those named here.

    The second are resources that this process has given a name, which no list may show yet.

    Raises:
        TemporaryError: an answer did not come.
    """
    listed = tuple(listed)
    shown = {resource.uuid for resource in listed if resource.account}
    unnamed = {resource.uuid for resource in listed if not resource.account}
    return _read(site, (unnamed | site.named) - shown)


def _read(site: Site, uuids: Iterable[UUID]) -> list[Resource]:
    """Resources as they are now; those that are gone, or not this token's business, are left out.

    Raises:
        TemporaryError: an answer did not come.
    """
    found = []
    for attempt in concurrently(site.waldur.resource, sorted(uuids)):
        if attempt.value is not None:
            found.append(attempt.value)
        elif not isinstance(attempt.error, NotFoundError):
            raise TemporaryError(
                f"the account of resource {attempt.item} is not known: {attempt.error}"
            ) from attempt.error
    return found


def _namesakes_of(site: Site, names: Collection[str]) -> list[Resource]:
    found: list[Resource] = []
    for attempt in concurrently(lambda name: namesakes(site, name), sorted(names)):
        if attempt.error is not None:
            raise TemporaryError(
                f'who owns account "{attempt.item}" is not known: {attempt.error}'
            ) from attempt.error
        found += attempt.value or ()
    return found


def _used_since_the_order(
    site: Site, hands: Iterable[OrderInHand], taken: Collection[str]
) -> Iterator[Resource]:
    """Terminated resources that had a name after the order that could be given it was placed.

    A resource's usage counts from its order on, by the name of its account: what a predecessor of
    the same name used in between would be billed to both. Only names that follow from the
    project's slug are ever given again, and only those have alternatives.

    Raises:
        TemporaryError: an answer did not come.
    """
    choosing = [hand for hand in hands if _has_a_choice(hand)]
    rivals = Counter(hand.placements[0].id for hand in choosing)
    for hand in choosing:
        free = 0
        for name in (placement.id for placement in hand.placements if placement.id not in taken):
            listing = site.waldur.resources_named(name, (ResourceState.TERMINATED,))
            ended = listing.require_every_page(f'terminated resources named "{name}"')
            used = [resource for resource in ended if _ended_after(resource, hand.resource.created)]
            yield from used
            free += not used
            if free == rivals[hand.placements[0].id]:
                break


def _has_a_choice(hand: OrderInHand) -> bool:
    """Whether the order is to give its resource one of several names."""
    is_open = hand.order.type == OrderType.CREATE and hand.problem is None
    return is_open and not hand.resource.account and len(hand.placements) > 1


def _may_adopt(hand: OrderInHand, state: BackendState) -> bool:
    """Whether the order might give its resource an account that exists."""
    is_nameless = hand.order.type == OrderType.CREATE and not hand.resource.account
    return is_nameless and bool(_doubtful_names(hand, state))


def _ended_after(resource: Resource, moment: datetime | None) -> bool:
    """Whether it may have; in doubt it has."""
    return moment is None or resource.modified is None or resource.modified >= moment


def _alive(resources: Iterable[Resource]) -> list[Resource]:
    return [resource for resource in resources if resource.state != ResourceState.TERMINATED]


def _doubtful_names(hand: OrderInHand, state: BackendState) -> set[str]:
    """Accounts that exist and that the order might take over, change for others, or delete."""
    if hand.problem is not None or hand.order.type == OrderType.UPDATE:
        return set()
    own = hand.resource.account
    return ({own} if own else _names_of(hand)) & state.resources.keys()


def _names_of(hand: OrderInHand) -> set[str]:
    return {placement.id for placement in hand.placements}
