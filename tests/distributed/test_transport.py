"""Messages of many ranks, packed and delivered by hand."""

import torch

from steepest.distributed.transport import Exchange, Message, Route, cut

DEVICE = torch.device("cpu")


def deliver(messages, ranks, pieces, dtype=torch.float64):
    """What every rank unpacks, with the all-to-all done by hand."""
    sides = [Exchange(messages, ranks, me) for me in range(ranks)]
    sent = [
        side.pack(lambda m, me=me: pieces[me][m.item, m.target], dtype, DEVICE).split(side.send_counts)
        for me, side in enumerate(sides)
    ]
    results = []
    for me, side in enumerate(sides):
        assert side.receive_counts == [len(sent[other][me]) for other in range(ranks)]
        buffer = torch.cat([sent[other][me] for other in range(ranks)])
        results.append([(message, content.clone()) for message, content in side.unpack(buffer)])
    return results


def everything(shape):
    return (0,) * len(shape), tuple(shape)


def shards(shape, ranks, dim):
    """Blocks along one dimension, as even as ``torch.chunk`` makes them."""
    per, regions = -(-shape[dim] // ranks), []
    for rank in range(ranks):
        offset, size = [0] * len(shape), list(shape)
        offset[dim] = min(rank * per, shape[dim])
        size[dim] = min(per, shape[dim] - offset[dim])
        regions.append((tuple(offset), tuple(size)))
    return tuple(regions)


def test_there_and_back_for_uneven_and_empty_shards():
    ranks = 4
    generator = torch.Generator().manual_seed(0)
    shapes = [((7, 5), 0), ((7, 5), 1), ((3, 1000), 0), ((1, 1), 0), ((4, 3, 2, 2), 1), ((5, 2, 3), 2)]
    wholes = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape, _ in shapes]
    routes = [
        Route(i % ranks, shards(shape, ranks, dim), tuple(range(ranks)))
        for i, (shape, dim) in enumerate(shapes)
    ]
    messages = [m for i, route in enumerate(routes) for m in route.inward(i)]
    pieces = [
        {(m.item, m.target): cut(wholes[m.item], m.region) for m in messages if m.source == me}
        for me in range(ranks)
    ]
    gathered = {i: torch.full_like(whole, torch.nan) for i, whole in enumerate(wholes)}
    for me, received in enumerate(deliver(messages, ranks, pieces)):
        for message, content in received:
            assert routes[message.item].owner == me
            cut(gathered[message.item], message.region).copy_(content)
    for i, whole in enumerate(wholes):
        assert torch.equal(gathered[i], whole)

    back = [m for i, route in enumerate(routes) for m in route.outward(i)]
    pieces = [
        {(m.item, m.target): cut(gathered[m.item], m.region) for m in back if m.source == me}
        for me in range(ranks)
    ]
    for me, received in enumerate(deliver(back, ranks, pieces)):
        arrived = {message.item: content for message, content in received}
        for i, route in enumerate(routes):
            expected = cut(wholes[i], route.regions[me])
            assert torch.equal(arrived.get(i, expected.new_empty(expected.shape)), expected)


def test_a_replica_is_gathered_from_one_copy_and_sent_to_all():
    regions = shards((3, 5), 2, 0) * 2  # ranks 0 and 1 hold one copy, 2 and 3 another
    route = Route(3, regions, (2, 3))
    assert [(m.source, m.target) for m in route.inward(0)] == [(2, 3), (3, 3)]
    assert [m.target for m in route.outward(0)] == [0, 1, 2, 3]
    whole = Route(1, (everything((3, 5)),) * 4, (1,))
    assert whole.inward(0) == []


def test_messages_are_rounded_to_the_dtype_of_the_traffic():
    x = torch.tensor([[1.0, 1.0 + 2.0**-12]])
    message = Message(0, 0, 0, everything(x.shape))
    ((_, content),) = deliver([message], 1, [{(0, 0): x}], torch.bfloat16)[0]
    assert content.tolist() == [[1.0, 1.0]]


def test_silence_is_the_same_on_all_ranks():
    own = [Message(i, r, r, everything((2,))) for i, r in enumerate((0, 1, 1))]
    assert all(Exchange(own, 2, me).silent for me in range(2))
    assert not any(Exchange([*own, Message(3, 0, 1, everything((2,)))], 3, me).silent for me in range(3))
