-- +goose Up
-- The books of the HSM's keys: what should be there, and which version serves. Each row is covered by entries about
-- "hsm:<role> v<version>".
CREATE TABLE keys (
    role         TEXT NOT NULL,
    version      INTEGER NOT NULL CHECK (version > 0),
    kind         TEXT NOT NULL,
    class        TEXT NOT NULL CHECK (class IN ('bound', 'recoverable')),
    state        TEXT NOT NULL CHECK (state IN ('active', 'retired', 'destroyed')),
    check_value  TEXT NOT NULL,
    origin       TEXT NOT NULL CHECK (origin IN ('generated', 'restored')),
    created_at   TEXT NOT NULL,
    retired_at   TEXT NOT NULL DEFAULT '',
    destroyed_at TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (role, version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keys_active ON keys (role) WHERE state = 'active';

-- +goose Down
DROP TABLE keys;
