-- +goose Up
CREATE TABLE merchants (
    id             TEXT PRIMARY KEY,
    domain         TEXT NOT NULL,          -- token space; several merchants may share one
    profile        TEXT NOT NULL,          -- JSON: name, MCC, country, acquirer and 3DS ids
    limits         TEXT NOT NULL,          -- JSON: largest amounts in minor units, by currency; empty: any
    return_hosts   TEXT NOT NULL,          -- JSON: hosts that return URLs may name; empty: any
    webhook_hosts  TEXT NOT NULL,          -- JSON: hosts that webhook endpoints may be on; empty: any
    created_at     TEXT NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    mode        TEXT NOT NULL,             -- test or live
    mac         BLOB NOT NULL,             -- HMAC of the secret under the HSM's apikey
    scopes      TEXT NOT NULL,             -- space-separated
    created_at  TEXT NOT NULL,
    allow       TEXT NOT NULL,             -- space-separated prefixes of addresses; '' for all
    ends_at     TEXT NOT NULL,             -- '' for never
    revoked_at  TEXT NOT NULL
) STRICT;

-- When API keys were last used, to the minute. No entry covers it.
CREATE TABLE api_key_uses (
    id      TEXT PRIMARY KEY REFERENCES api_keys (id),
    used_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE payments (
    id           TEXT PRIMARY KEY,
    merchant_id  TEXT NOT NULL REFERENCES merchants (id),
    session_hash BLOB NOT NULL UNIQUE,     -- SHA-256 of the checkout session
    status       TEXT NOT NULL,
    amount       INTEGER NOT NULL,         -- minor units
    currency     TEXT NOT NULL,
    reference    TEXT NOT NULL,
    return_url   TEXT NOT NULL,
    capture      TEXT NOT NULL,            -- automatic, manual
    token        TEXT NOT NULL,            -- of the stored card that pays; '' where a card is entered
    initiator    TEXT NOT NULL,            -- customer or merchant, of a stored card
    original     TEXT NOT NULL,            -- payment on which a merchant's own one stands
    captured     INTEGER NOT NULL,         -- minor units that the acquirer has booked
    refunded     INTEGER NOT NULL,         -- of them
    attempts     INTEGER NOT NULL DEFAULT 0,
    challenge    TEXT NOT NULL,            -- what is asked of 3-D Secure: no_challenge, preferred, mandated; empty for no preference
    exemption    TEXT NOT NULL,            -- why no challenge is needed; may be empty
    setup        TEXT NOT NULL,            -- recurring, instalments, unscheduled; empty for one payment
    recurring_expiry TEXT NOT NULL,        -- YYYY-MM-DD; empty where nothing recurs
    recurring_days   INTEGER NOT NULL,     -- at least so many between two charges
    instalments  INTEGER NOT NULL,
    created_at   TEXT NOT NULL,
    expires_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
) STRICT;
CREATE INDEX payments_by_merchant ON payments (merchant_id, id DESC);
CREATE INDEX payments_unfinished ON payments (status, expires_at) WHERE status IN ('created', 'authenticating', 'authorizing', 'authorized', 'indeterminate', 'declined');

-- What belongs to people. Never covered by an entry, so that it can be deleted.
CREATE TABLE customers (
    payment_id TEXT PRIMARY KEY REFERENCES payments (id),
    name       TEXT NOT NULL,
    email      TEXT NOT NULL,
    phone      TEXT NOT NULL,
    billing    TEXT NOT NULL            -- JSON; may be empty
) STRICT;

-- One card tried on a payment.
CREATE TABLE attempts (
    payment_id    TEXT NOT NULL REFERENCES payments (id),
    n             INTEGER NOT NULL,
    status        TEXT NOT NULL,
    form          TEXT NOT NULL,           -- the showing of the form that it came from
    initiator     TEXT NOT NULL,           -- customer or merchant, of a stored card
    domain        TEXT NOT NULL,
    token         TEXT NOT NULL,
    brand         TEXT NOT NULL,
    truncated     TEXT NOT NULL,
    expiry        TEXT NOT NULL,
    trans_status  TEXT NOT NULL DEFAULT '',
    eci           TEXT NOT NULL DEFAULT '',
    server_trans_id TEXT NOT NULL DEFAULT '',
    ds_trans_id   TEXT NOT NULL DEFAULT '',
    stan          TEXT NOT NULL DEFAULT '',
    rrn           TEXT NOT NULL DEFAULT '',
    sent_at       TEXT NOT NULL DEFAULT '',
    connector     TEXT NOT NULL DEFAULT '', -- that it was sent by, and what follows it
    connector_reference TEXT NOT NULL DEFAULT '', -- the processor's own name of the sale
    response_code TEXT NOT NULL DEFAULT '',
    approval_code TEXT NOT NULL DEFAULT '',
    network_id    TEXT NOT NULL DEFAULT '', -- the scheme's, of the transaction
    soft_decline  TEXT NOT NULL DEFAULT '', -- how its first sale was answered, after which the issuer was asked for a challenge
    reason        TEXT NOT NULL DEFAULT '',
    reversal_stan TEXT NOT NULL DEFAULT '',
    reversal_rrn  TEXT NOT NULL DEFAULT '',
    reversal_at   TEXT NOT NULL DEFAULT '',
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    PRIMARY KEY (payment_id, n)
) STRICT;
CREATE INDEX attempts_unresolved ON attempts (status) WHERE status IN ('authorizing', 'indeterminate');
CREATE UNIQUE INDEX attempts_by_form ON attempts (payment_id, form);

-- What a merchant does with a payment after its authorization: captures, voids and refunds. One of a payment at a time.
CREATE TABLE modifications (
    id            TEXT PRIMARY KEY,
    payment_id    TEXT NOT NULL REFERENCES payments (id),
    kind          TEXT NOT NULL CHECK (kind IN ('capture', 'void', 'refund')),
    status        TEXT NOT NULL CHECK (status IN ('pending', 'indeterminate', 'succeeded', 'failed')),
    amount        INTEGER NOT NULL,        -- minor units
    currency      TEXT NOT NULL,
    stan          TEXT NOT NULL,
    rrn           TEXT NOT NULL,
    sent_at       TEXT NOT NULL,
    response_code TEXT NOT NULL,
    approval_code TEXT NOT NULL,
    reason        TEXT NOT NULL,
    reversal_stan TEXT NOT NULL,
    reversal_rrn  TEXT NOT NULL,
    reversal_at   TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) STRICT;
CREATE INDEX modifications_by_payment ON modifications (payment_id, id);
CREATE UNIQUE INDEX modifications_open ON modifications (payment_id) WHERE status IN ('pending', 'indeterminate');

-- Comparisons of books with acquirers, each of a terminal in one currency.
CREATE TABLE settlements (
    id              TEXT PRIMARY KEY,
    connector       TEXT NOT NULL,
    terminal        TEXT NOT NULL,
    currency        TEXT NOT NULL,
    log             INTEGER NOT NULL,       -- number of the log that the entries are in
    entries_from    INTEGER NOT NULL,       -- the first entry that is counted
    entries_through INTEGER NOT NULL,       -- the first that is not
    status          TEXT NOT NULL CHECK (status IN ('pending', 'balanced', 'out_of_balance')),
    ours            TEXT NOT NULL,          -- JSON: counts and sums
    theirs          TEXT NOT NULL,          -- JSON, as far as the acquirer has told them
    stan            TEXT NOT NULL,
    sent_at         TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
) STRICT;
CREATE INDEX settlements_of ON settlements (connector, terminal, currency, log, entries_through);

-- The registry of issued tokens. No hash of a PAN, nothing from which a PAN follows without the HSM. What is issued is an
-- immutable record; package runs keeps records in these four tables and moves them between them.
CREATE TABLE token_tail (
    seq     INTEGER PRIMARY KEY,
    records BLOB NOT NULL                  -- of one commit
) STRICT;
CREATE TABLE token_runs (
    id      INTEGER PRIMARY KEY,
    level   INTEGER NOT NULL,
    records INTEGER NOT NULL,
    through INTEGER NOT NULL               -- tail segments up to this one are in this run or an older one
) STRICT;
CREATE TABLE token_chunks (
    run    INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    pages  BLOB NOT NULL,                  -- where they are and with which key each begins
    filter BLOB NOT NULL,
    UNIQUE (run, n)                        -- with a rowid: filters are too large for the nodes of an index
) STRICT;
CREATE TABLE token_pages (
    id   INTEGER PRIMARY KEY,              -- a place, used again when its run is merged into another
    page BLOB NOT NULL
) STRICT;

-- Domains by number, as records name them.
CREATE TABLE token_domains (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- What has changed about a token since it was issued.
CREATE TABLE token_states (
    domain      TEXT NOT NULL,
    token       TEXT NOT NULL,
    status      TEXT NOT NULL,             -- active, inactive, replaced
    expiry      TEXT NOT NULL,
    replaced_by TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    PRIMARY KEY (domain, token)
) STRICT, WITHOUT ROWID;

-- How many tokens each key version has: counted along, so that nobody must scan.
CREATE TABLE token_counts (
    key_version INTEGER PRIMARY KEY,
    issued      INTEGER NOT NULL,
    replaced    INTEGER NOT NULL
) STRICT;

-- Bulk issues: the Merkle root over a batch's rows in key order.
CREATE TABLE token_batches (
    n       INTEGER PRIMARY KEY,
    records INTEGER NOT NULL,
    root    BLOB NOT NULL
) STRICT;

-- Replacements, in the order in which they happened, and how far a domain has followed them.
CREATE TABLE token_changes (
    seq    INTEGER PRIMARY KEY,
    first  INTEGER NOT NULL,               -- of those that share a root with it
    domain TEXT NOT NULL,
    old    TEXT NOT NULL,
    new    TEXT NOT NULL,
    expiry TEXT NOT NULL,
    at     TEXT NOT NULL
) STRICT;
CREATE INDEX token_changes_by_domain ON token_changes (domain, seq);
CREATE TABLE domain_acks (
    domain TEXT PRIMARY KEY,
    seq    INTEGER NOT NULL,
    at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Versions of the tokenization key on their way out; '' for a time that has not come.
CREATE TABLE token_retirements (
    key_version INTEGER PRIMARY KEY,
    window      INTEGER NOT NULL,          -- nanoseconds
    started_at  TEXT NOT NULL,
    replaced_at TEXT NOT NULL,
    changes     INTEGER NOT NULL,          -- the newest replacement at replaced_at
    counted_at  TEXT NOT NULL,
    ended_at    TEXT NOT NULL
) STRICT;

-- Where merchants are told of events. A deleted one keeps its row, without address and secrets: entries cover it.
CREATE TABLE webhook_endpoints (
    id          TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    url         TEXT NOT NULL,
    types       TEXT NOT NULL,             -- JSON: of events; empty: all
    status      TEXT NOT NULL CHECK (status IN ('enabled', 'disabled', 'gone', 'deleted')),
    secret      BLOB NOT NULL,             -- sealed under the HSM's kek
    old_secret  BLOB NOT NULL,             -- the one before, which signs too until old_until; empty for none
    old_until   TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL
) STRICT;
CREATE INDEX webhook_endpoints_by_merchant ON webhook_endpoints (merchant_id) WHERE status <> 'deleted';

-- The outbox: written in the commit of the transition that it tells of.
CREATE TABLE events (
    id          TEXT PRIMARY KEY,
    merchant_id TEXT NOT NULL REFERENCES merchants (id),
    payment_id  TEXT NOT NULL,
    sequence    INTEGER NOT NULL,          -- rises within a payment
    type        TEXT NOT NULL,
    body        BLOB NOT NULL,
    created_at  TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_payment ON events (payment_id, sequence);
CREATE INDEX events_by_merchant ON events (merchant_id, id DESC);

-- Delivery of an event to an endpoint, and its tries: bookkeeping that no entry covers.
CREATE TABLE deliveries (
    event_id    TEXT NOT NULL REFERENCES events (id),
    endpoint_id TEXT NOT NULL REFERENCES webhook_endpoints (id),
    status      TEXT NOT NULL,             -- pending, delivered, failed, cancelled
    tries       INTEGER NOT NULL DEFAULT 0,
    step        INTEGER NOT NULL DEFAULT 0, -- tries since it began, or was asked for again
    next_at     TEXT NOT NULL,
    PRIMARY KEY (event_id, endpoint_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_at) WHERE status = 'pending';

CREATE TABLE delivery_tries (
    event_id    TEXT NOT NULL REFERENCES events (id),
    endpoint_id TEXT NOT NULL REFERENCES webhook_endpoints (id),
    n           INTEGER NOT NULL,
    at          TEXT NOT NULL,
    code        INTEGER NOT NULL,          -- HTTP status, 0 for none
    error       TEXT NOT NULL,
    PRIMARY KEY (event_id, endpoint_id, n)
) STRICT, WITHOUT ROWID;

-- First answers, for repeats of a request. No entry covers them.
CREATE TABLE idempotency (
    merchant_id TEXT NOT NULL,
    key         TEXT NOT NULL,
    request_mac BLOB NOT NULL,             -- HMAC of method, path and body under an HSM key
    answer      TEXT NOT NULL,             -- what the answer is made from again: the id of a payment, modification or endpoint, the place of a token
    created_at  TEXT NOT NULL,
    PRIMARY KEY (merchant_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (created_at);

-- What sealed cards came in, so that each is taken once. Rows go with their key. No entry covers them.
CREATE TABLE envelopes (
    key  TEXT NOT NULL,                    -- label of the key that it is sealed to
    hash BLOB NOT NULL,                    -- of the encapsulated key: the first 16 bytes of its SHA-256
    PRIMARY KEY (key, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE sequences (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

-- The signed log. ledger_nodes holds the roots of complete subtrees of 256^level leaves.
CREATE TABLE ledger_entries (
    idx   INTEGER PRIMARY KEY,
    leaf  BLOB NOT NULL,                   -- RFC 6962 leaf hash
    entry TEXT NOT NULL                    -- canonical JSON
) STRICT;
CREATE INDEX ledger_by_resource ON ledger_entries (entry ->> '$.resource');
CREATE TABLE ledger_nodes (
    level INTEGER NOT NULL,
    idx   INTEGER NOT NULL,
    hash  BLOB NOT NULL,
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger_checkpoints (
    size INTEGER PRIMARY KEY,
    note BLOB NOT NULL
) STRICT;

-- Logs that others have followed. Their entries, nodes and checkpoints are in the same tables: log n has the numbers from
-- n * 2^40 on, and the open one is that after the last row here.
CREATE TABLE closed_logs (
    n         INTEGER PRIMARY KEY,
    origin    TEXT NOT NULL UNIQUE,
    key       TEXT NOT NULL,               -- verifier key, of C2SP signed-note
    size      INTEGER NOT NULL,
    note      BLOB NOT NULL,               -- its last checkpoint
    successor TEXT NOT NULL UNIQUE,
    closed_at TEXT NOT NULL
) STRICT;

-- What witnesses have signed of a checkpoint.
CREATE TABLE ledger_cosignatures (
    size INTEGER NOT NULL REFERENCES ledger_checkpoints (size),
    line TEXT NOT NULL,                    -- of C2SP signed-note
    PRIMARY KEY (size, line)
) STRICT, WITHOUT ROWID;

-- Counts of new cards that begin and end alike, once they have come near the limit: bookkeeping that no entry covers.
CREATE TABLE token_bounds (
    period    TEXT NOT NULL,               -- a day (UTC, YYYY-MM-DD) or the id of an import
    domain    TEXT NOT NULL,
    key_id    TEXT NOT NULL,               -- of the API key
    truncated TEXT NOT NULL,
    cards     INTEGER NOT NULL,
    PRIMARY KEY (period, domain, key_id, truncated)
) STRICT, WITHOUT ROWID;

-- Times in which an API key may have more cards tokenized that begin and end alike.
CREATE TABLE token_imports (
    id        TEXT PRIMARY KEY,
    key_id    TEXT NOT NULL REFERENCES api_keys (id),
    bound     INTEGER NOT NULL,
    opened_at TEXT NOT NULL,
    until     TEXT NOT NULL,
    closed_at TEXT NOT NULL                -- '' while nobody has closed it
) STRICT;

-- To whom the cards of an API key are detokenized.
CREATE TABLE recipients (
    key_id     TEXT PRIMARY KEY REFERENCES api_keys (id),
    public_key BLOB NOT NULL,              -- P-256, uncompressed point (SEC 1, section 2.3.3)
    quota      INTEGER NOT NULL,           -- cards a day
    usable_at  TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- How many cards an API key has had detokenized in a day; each has an entry of its own.
CREATE TABLE detokenizations (
    key_id TEXT PRIMARY KEY,
    day    TEXT NOT NULL,                  -- UTC, YYYY-MM-DD
    cards  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may look at the log, and how they show that it is them. Entries name the auditor by id only.
CREATE TABLE auditor_grants (
    id         TEXT PRIMARY KEY,
    auditor_id TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('link', 'certificate')),
    hash       BLOB NOT NULL UNIQUE,       -- SHA-256 of the link's secret, or of the certificate's public key
    session    BLOB NOT NULL,              -- SHA-256 of the session's secret; empty while there is none
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    opened_at  TEXT NOT NULL,              -- '' for a link that nobody has opened
    ended_at   TEXT NOT NULL               -- '' while nobody has ended it
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX auditor_grants_by_session ON auditor_grants (session) WHERE session <> x'';

-- The names of auditors. They belong to people: never covered by an entry, so that they can be deleted.
CREATE TABLE auditors (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE auditors;
DROP TABLE auditor_grants;
DROP TABLE detokenizations;
DROP TABLE recipients;
DROP TABLE token_imports;
DROP TABLE token_bounds;
DROP TABLE ledger_cosignatures;
DROP TABLE closed_logs;
DROP TABLE ledger_checkpoints;
DROP TABLE ledger_nodes;
DROP TABLE ledger_entries;
DROP TABLE sequences;
DROP TABLE envelopes;
DROP TABLE idempotency;
DROP TABLE delivery_tries;
DROP TABLE deliveries;
DROP TABLE events;
DROP TABLE webhook_endpoints;
DROP TABLE token_retirements;
DROP TABLE domain_acks;
DROP TABLE token_changes;
DROP TABLE token_batches;
DROP TABLE token_counts;
DROP TABLE token_states;
DROP TABLE token_domains;
DROP TABLE token_pages;
DROP TABLE token_chunks;
DROP TABLE token_runs;
DROP TABLE token_tail;
DROP TABLE settlements;
DROP TABLE modifications;
DROP TABLE attempts;
DROP TABLE customers;
DROP TABLE payments;
DROP TABLE api_key_uses;
DROP TABLE api_keys;
DROP TABLE merchants;
