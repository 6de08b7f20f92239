-- The journal's one statement: check every append of a batch and record them all, or refuse by name and record nothing.
--
-- Order of locks, the same for all writers: the gate (shared), the tenants' feeds in order of their ids. Everything else an append writes
-- belongs to one of those tenants, so no two writers can wait for each other. `acquire_partitions` takes the gate exclusively: it waits for
-- commits under way, and those after it see the new epochs.
--
-- The arrays of a group run in parallel. Tenants (t_) come sorted, each with the number of its events. Appends (a_). Events (e_) carry their
-- tenant's place in t_ (from 1) and their rank among its events of this batch (from 1): base + rank is the feed offset. Messages (m_) carry
-- the rank before their append's first event; their seq counts from there. Dedupe keys (d_) and aliases (l_) carry their append's place in
-- a_. Conversations (c_), snapshots (s_), raw webhooks (w_), quarantined items (q_). An array that would hold nothing but NULL may be NULL.
-- Returns each tenant's base: its head before this batch.
--
-- Raises PY001 with, as DETAIL, a JSON array of [append, outcome, payload] (one an append: the first of fenced, version, duplicate, alias).
create function append_batch(
    now_ms bigint, me text,
    t_tenant text[], t_events int[],
    a_tenant text[], a_stream text[], a_partition smallint[], a_epoch bigint[], a_expected int[], a_version int[],
    e_t int[], e_rank bigint[], e_tenant text[], e_stream text[], e_version int[], e_kind text[], e_body bytea[], e_at bigint[],
    e_endpoint text[], e_cause text[],
    d_append int[], d_key bytea[],
    l_append int[], l_endpoint text[], l_id text[], l_remove boolean[], l_steal text[],
    m_t int[], m_before bigint[], m_tenant text[], m_conversation text[], m_id text[], m_status smallint[], m_status_at bigint[],
    m_seq bigint[], m_at bigint[], m_outbound boolean[], m_origin text[], m_kind text[], m_content bytea[], m_context bytea[],
    m_author text[], m_problems bytea[], m_edited boolean[], m_revoked boolean[],
    c_tenant text[], c_id text[], c_endpoint text[], c_contact bytea[], c_name text[], c_preview text[], c_last_at bigint[],
    c_last_outbound boolean[], c_unanswered int[], c_messages int[], c_merged_into text[], c_absorbs text[],
    s_stream text[], s_version int[], s_body bytea[],
    w_id text[], w_provider text[], w_received_at bigint[], w_body bytea[], w_verdict text[], w_tenant text[],
    q_id text[], q_at bigint[], q_reason text[], q_detail text[], q_payload bytea[], q_tenant text[], q_webhook text[], q_stream text[]
) returns bigint[] language plpgsql as $$
declare
    bases bigint[];
    moved text[];
    started text[];
    fresh bytea[];
    more jsonb;
    refused jsonb := '[]';
begin
    perform pg_advisory_xact_lock_shared(1885434476, 2);

    with counted as (
        insert into feeds as f (tenant, epoch, head)
        select t.tenant, i.identity, t.events from unnest(t_tenant, t_events) as t (tenant, events), installation i
        on conflict (tenant) do update set head = f.head + excluded.head
        returning f.tenant, f.head
    )
    select array_agg(c.head - t.events order by t.place)
    from unnest(t_tenant, t_events) with ordinality as t (tenant, events, place) join counted c using (tenant)
    into bases;

    -- Heads and dedupe keys are written as they are checked: what cannot be written is refused. Nobody else moves a head of these tenants now.
    with done as (
        update streams s set version = a.version from unnest(a_stream, a_expected, a_version) as a (stream, expected, version)
        where s.stream = a.stream and s.version = a.expected and a.expected > 0
        returning s.stream
    )
    select array_agg(stream) from done into moved;
    with done as (
        insert into streams as s (stream, tenant, partition, version)
        select a.stream, a.tenant, a.partition, a.version
        from unnest(a_stream, a_tenant, a_partition, a_expected, a_version) as a (stream, tenant, partition, expected, version)
        where a.expected = 0
        on conflict (stream) do update set version = excluded.version where s.version = 0
        returning s.stream
    )
    select array_agg(stream) from done into started;
    with done as (
        insert into dedupe (key, at) select k, now_ms from unnest(d_key) as k on conflict do nothing returning key
    )
    select array_agg(key) from done into fresh;

    select jsonb_agg(jsonb_build_array(a.place, 'fenced', a.partition))
    from unnest(a_partition, a_epoch) with ordinality as a (partition, epoch, place)
    left join partitions p on p.partition = a.partition and p.epoch = a.epoch and p.owner = me
    where p.partition is null
    into more;
    refused := refused || coalesce(more, '[]');

    if coalesce(cardinality(moved), 0) + coalesce(cardinality(started), 0) < cardinality(a_stream) then
        select jsonb_agg(jsonb_build_array(a.place, 'version', coalesce(s.version, 0)))
        from unnest(a_stream) with ordinality as a (stream, place) left join streams s on s.stream = a.stream
        where a.stream <> all (coalesce(moved || started, '{}'))
        into more;
        refused := refused || more;
    end if;

    if coalesce(cardinality(fresh), 0) < cardinality(d_key) then
        select jsonb_agg(jsonb_build_array(r.append, 'duplicate', r.keys))
        from (select k.append, jsonb_agg(encode(k.key, 'hex')) as keys
              from unnest(d_append, d_key) as k (append, key) where k.key <> all (coalesce(fresh, '{}')) group by k.append) r
        into more;
        refused := refused || more;
    end if;

    if cardinality(l_id) > 0 then
        select jsonb_agg(jsonb_build_array(l.append, 'alias', jsonb_build_array(l.id, x.conversation)))
        from unnest(l_append, l_endpoint, l_id, l_remove, l_steal) as l (append, endpoint, id, remove, steal)
        join aliases x on x.tenant = a_tenant[l.append] and x.endpoint = l.endpoint and x.external_id = l.id
        where not l.remove and x.conversation <> a_stream[l.append] and x.conversation is distinct from l.steal
        into more;
        refused := refused || coalesce(more, '[]');
    end if;

    if refused <> '[]' then
        raise exception using errcode = 'PY001', message = 'appends refused', detail = refused::text;
    end if;

    insert into events (tenant, feed_offset, stream, version, kind, body, at, recorded_at, endpoint, cause)
    select e.tenant, bases[e.t] + e.rank, e.stream, e.version, e.kind, e.body, e.at, now_ms, e.endpoint,
           e.cause
    from unnest(e_t, e_rank, e_tenant, e_stream, e_version, e_kind, e_body, e_at, e_endpoint, e_cause)
        as e (t, rank, tenant, stream, version, kind, body, at, endpoint, cause);

    if cardinality(l_id) > 0 then
        delete from aliases x using unnest(l_append, l_endpoint, l_id, l_remove) as l (append, endpoint, id, remove)
        where l.remove and x.tenant = a_tenant[l.append] and x.endpoint = l.endpoint and x.external_id = l.id
          and x.conversation = a_stream[l.append];
        insert into aliases (tenant, endpoint, external_id, conversation)
        select a_tenant[l.append], l.endpoint, l.id, a_stream[l.append]
        from unnest(l_append, l_endpoint, l_id, l_remove) as l (append, endpoint, id, remove) where not l.remove
        on conflict (tenant, endpoint, external_id) do update set conversation = excluded.conversation;
    end if;

    if cardinality(array_remove(c_absorbs, null)) > 0 then
        -- Where both threads know a message, what the absorbing one says stands.
        with moved as (
            delete from messages m using unnest(c_tenant, c_id, c_absorbs) as x (tenant, target, source)
            where m.conversation = x.source and m.tenant = x.tenant
            returning m.*, x.target
        )
        insert into messages as m
        select tenant, message_id, target, seq, at, recorded_at, outbound, origin, kind, content, context, author, status, status_at,
               problems, edited, revoked
        from moved
        on conflict (message_id, conversation) do update set
            seq = coalesce(m.seq, excluded.seq),
            at = coalesce(m.at, excluded.at),
            recorded_at = coalesce(m.recorded_at, excluded.recorded_at),
            outbound = coalesce(m.outbound, excluded.outbound),
            origin = coalesce(m.origin, excluded.origin),
            kind = coalesce(m.kind, excluded.kind),
            content = coalesce(m.content, excluded.content),
            context = coalesce(m.context, excluded.context),
            author = coalesce(m.author, excluded.author),
            status = greatest(m.status, excluded.status),
            status_at = case when excluded.status > m.status then excluded.status_at else m.status_at end,
            problems = coalesce(m.problems, excluded.problems),
            edited = m.edited or excluded.edited,
            revoked = m.revoked or excluded.revoked;
    end if;

    insert into messages as m (tenant, message_id, conversation, seq, at, recorded_at, outbound, origin, kind, content, context, author,
                               status, status_at, problems, edited, revoked)
    select w.tenant, w.id, w.conversation, bases[w.t] + w.before + w.seq, w.at, case when w.seq is not null then now_ms end, w.outbound,
           w.origin, w.kind, w.content, w.context, w.author, w.status, w.status_at, w.problems, w.edited, w.revoked
    from unnest(m_t, m_before, m_tenant, m_conversation, m_id, m_status, m_status_at, m_seq, m_at, m_outbound, m_origin, m_kind, m_content,
                m_context, m_author, m_problems, m_edited, m_revoked)
        as w (t, before, tenant, conversation, id, status, status_at, seq, at, outbound, origin, kind, content, context, author, problems,
              edited, revoked)
    on conflict (message_id, conversation) do update set
        seq = coalesce(excluded.seq, m.seq),
        at = coalesce(excluded.at, m.at),
        recorded_at = coalesce(excluded.recorded_at, m.recorded_at),
        outbound = coalesce(excluded.outbound, m.outbound),
        origin = coalesce(excluded.origin, m.origin),
        kind = coalesce(excluded.kind, m.kind),
        content = coalesce(excluded.content, m.content),
        context = coalesce(excluded.context, m.context),
        author = coalesce(excluded.author, m.author),
        status = greatest(excluded.status, m.status),
        status_at = case when excluded.status > m.status then excluded.status_at else m.status_at end,
        problems = coalesce(excluded.problems, m.problems),
        edited = excluded.edited or m.edited,
        revoked = excluded.revoked or m.revoked;

    insert into conversations as c (tenant, id, endpoint, contact, name, preview, last_at, last_outbound, unanswered, messages, merged_into)
    select * from unnest(c_tenant, c_id, c_endpoint, c_contact, c_name, c_preview, c_last_at, c_last_outbound, c_unanswered, c_messages,
                         c_merged_into)
    on conflict (id) do update set
        endpoint = excluded.endpoint, contact = excluded.contact, name = excluded.name, preview = excluded.preview,
        last_at = excluded.last_at, last_outbound = excluded.last_outbound, unanswered = excluded.unanswered,
        messages = excluded.messages, merged_into = excluded.merged_into;

    if cardinality(s_stream) > 0 then
        insert into snapshots (stream, version, body) select * from unnest(s_stream, s_version, s_body)
        on conflict (stream) do update set version = excluded.version, body = excluded.body;
    end if;

    insert into raw_webhooks (id, provider, received_at, body, verdict, tenant)
    select * from unnest(w_id, w_provider, w_received_at, w_body, w_verdict, w_tenant)
    on conflict do nothing;

    if cardinality(q_id) > 0 then
        insert into quarantine (id, at, reason, detail, payload, tenant, webhook, stream)
        select * from unnest(q_id, q_at, q_reason, q_detail, q_payload, q_tenant, q_webhook, q_stream)
        on conflict do nothing;
    end if;

    return bases;
end
$$;
