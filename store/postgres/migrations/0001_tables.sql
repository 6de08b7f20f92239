-- Ids are compared byte by byte (COLLATE "C"), times are Unix milliseconds.

-- One row: which installation this is. Every feed's epoch begins as its identity.
create table installation (
    identity text not null default gen_random_uuid()::text
);
insert into installation default values;

-- The fence: a commit names the epoch and the owner of its streams' partitions.
create table partitions (
    partition   smallint primary key,
    epoch       bigint   not null,
    owner       text     not null,
    acquired_at bigint   not null
) with (fillfactor = 50);

-- The head of each stream. Updated by every append: room is left for HOT updates.
create table streams (
    stream    text collate "C" primary key,
    tenant    text collate "C" not null,
    partition smallint not null,
    version   integer  not null
) with (fillfactor = 80);

create table snapshots (
    stream  text collate "C" primary key,
    version integer not null,
    body    bytea   not null
) with (fillfactor = 80);

-- The head of each tenant's feed. Its row lock is what orders a tenant's commits.
create table feeds (
    tenant text collate "C" primary key,
    epoch  text   not null,
    head   bigint not null
) with (fillfactor = 50);

-- Uniqueness of (stream, version) and (tenant, feed_offset) follows from `streams` and `feeds`: a partitioned table cannot enforce it.
create table events (
    tenant      text collate "C" not null,
    feed_offset bigint  not null,
    stream      text collate "C" not null,
    version     integer not null,
    kind        text    not null,
    body        bytea   not null,
    at          bigint  not null,
    recorded_at bigint  not null,
    endpoint    text collate "C",
    cause       text collate "C"
) partition by range (recorded_at);
create index events_feed on events (tenant, feed_offset);
create index events_stream on events (stream, version);
create table events_default partition of events default;

create table dedupe (
    key bytea primary key,
    at  bigint not null
);

-- Which conversation a contact's external id leads to.
create table aliases (
    tenant       text collate "C" not null,
    endpoint     text collate "C" not null,
    external_id  text collate "C" not null,
    conversation text collate "C" not null,
    primary key (tenant, endpoint, external_id)
);
create index aliases_conversation on aliases (conversation);

create table conversations (
    id            text collate "C" primary key,
    tenant        text collate "C" not null,
    endpoint      text collate "C" not null,
    contact       bytea   not null,
    name          text    not null,
    preview       text    not null,
    last_at       bigint  not null,
    last_outbound boolean not null,
    unanswered    integer not null,
    messages      integer not null,
    merged_into   text collate "C"
) with (fillfactor = 80);
create index conversations_list on conversations (tenant, last_at, id) where merged_into is null;

-- A thread's read model. `seq` is the feed offset of the event that recorded the message: threads that merge interleave as committed.
-- A row without `seq` is a receipt whose message has not come.
create table messages (
    tenant       text collate "C" not null,
    message_id   text collate "C" not null,
    conversation text collate "C" not null,
    seq          bigint,
    at           bigint,
    recorded_at  bigint,
    outbound     boolean,
    origin       text,
    kind         text,
    content      bytea,
    context      bytea,
    author       text,
    status       smallint not null,
    status_at    bigint,
    problems     bytea,
    edited       boolean  not null,
    revoked      boolean  not null,
    primary key (message_id, conversation)
) with (fillfactor = 90);
create index messages_thread on messages (conversation, seq);

create table raw_webhooks (
    id          text collate "C" not null,
    provider    text   not null,
    received_at bigint not null,
    body        bytea  not null,
    verdict     text   not null,
    tenant      text collate "C",
    primary key (received_at, id)
) partition by range (received_at);
create table raw_webhooks_default partition of raw_webhooks default;

create table quarantine (
    id      text collate "C" primary key,
    at      bigint not null,
    reason  text   not null,
    detail  text   not null,
    payload bytea  not null,
    tenant  text collate "C",
    webhook text collate "C",
    stream  text collate "C"
);
create index quarantine_newest on quarantine (at, id);
create index quarantine_tenant on quarantine (tenant, at, id);

create table tenants (
    id     text collate "C" primary key,
    slug   text collate "C" not null unique,
    name   text not null,
    status text not null
);

create table endpoints (
    provider     text collate "C" not null,
    external_id  text collate "C" not null,
    tenant       text collate "C" not null,
    app_secret   text not null,
    verify_token text not null,
    account      text,
    display      text,
    primary key (provider, external_id)
);

create table api_keys (
    id         text collate "C" primary key,
    tenant     text collate "C" not null,
    prefix     text   not null,
    digest     bytea  not null,
    created_at bigint not null,
    revoked_at bigint
);

-- Make the partition [lower, upper) of `parent` unless it exists. It is filled and attached, not created in place: attaching takes a lock
-- that lets appends go on, and rows a wrong clock had sent to the default partition move along.
create function add_partition(parent text, name text, lower bigint, upper bigint) returns void language plpgsql as $$
declare
    key text := pg_get_partkeydef(parent::regclass);
begin
    perform pg_advisory_xact_lock(1885434476, 3); -- one at a time
    if to_regclass(name) is not null then
        return;
    end if;
    key := substring(key from '\((.*)\)');
    execute format('create table %I (like %I including defaults)', name, parent);
    execute format('with moved as (delete from %I where %I >= $1 and %I < $2 returning *) insert into %I select * from moved',
                   parent || '_default', key, key, name) using lower, upper;
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, name, lower, upper);
end
$$;
