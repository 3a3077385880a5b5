package store

import "time"

// Auditor is one row of auditors: what a person who looks at the log is called. No entry covers it, so that it can be deleted.
type Auditor struct {
	ID        string
	Name      string
	CreatedAt time.Time
}

// Kinds of an [AuditorGrant].
const (
	GrantLink        = "link"
	GrantCertificate = "certificate"
)

// AuditorGrant is one row of auditor_grants: for some time, whoever shows a secret or a certificate is an auditor.
type AuditorGrant struct {
	ID        string
	AuditorID string
	Kind      string
	Hash      []byte // SHA-256 of the link's secret, or of the certificate's public key (SubjectPublicKeyInfo)
	Session   []byte // SHA-256 of the session's secret; nil while there is none
	CreatedAt time.Time
	ExpiresAt time.Time
	OpenedAt  time.Time
	EndedAt   time.Time
}

// Auditor returns one auditor's name. It may have been deleted.
func (q Queries) Auditor(id string) (Auditor, error) { return q.auditor("id", id) }

// AuditorNamed returns the auditor of a name.
func (q Queries) AuditorNamed(name string) (Auditor, error) { return q.auditor("name", name) }

func (q Queries) auditor(column, value string) (a Auditor, err error) {
	err = q.q.QueryRowContext(q.ctx, "SELECT id, name, created_at FROM auditors WHERE "+column+" = ?", value).Scan(&a.ID, &a.Name, scanTime{&a.CreatedAt})
	return a, translate(err)
}

// PutAuditor keeps a name.
func (tx *Tx) PutAuditor(a Auditor) error {
	return tx.Exec("INSERT INTO auditors (id, name, created_at) VALUES (?,?,?)", a.ID, a.Name, formatTime(a.CreatedAt))
}

// DeleteAuditor deletes a name.
func (tx *Tx) DeleteAuditor(id string) error { return tx.Exec("DELETE FROM auditors WHERE id = ?", id) }

const grantColumns = "id, auditor_id, kind, hash, session, created_at, expires_at, opened_at, ended_at"

func scanGrant(row scanner) (g AuditorGrant, err error) {
	err = row.Scan(&g.ID, &g.AuditorID, &g.Kind, &g.Hash, &g.Session, scanTime{&g.CreatedAt}, scanTime{&g.ExpiresAt}, scanTime{&g.OpenedAt}, scanTime{&g.EndedAt})
	if len(g.Session) == 0 {
		g.Session = nil // so that the row's hash is the one it was written with
	}
	return g, translate(err)
}

// GrantOf returns the grant of a link's secret or a certificate's key, by its SHA-256.
func (q Queries) GrantOf(kind string, hash []byte) (AuditorGrant, error) {
	return scanGrant(q.q.QueryRowContext(q.ctx, "SELECT "+grantColumns+" FROM auditor_grants WHERE kind = ? AND hash = ?", kind, hash))
}

// GrantOfSession returns the grant under which a session was opened, by the SHA-256 of the session's secret.
func (q Queries) GrantOfSession(hash []byte) (AuditorGrant, error) {
	return scanGrant(q.q.QueryRowContext(q.ctx, "SELECT "+grantColumns+" FROM auditor_grants WHERE session <> x'' AND session = ?", hash))
}

// Grants returns all grants, oldest first.
func (q Queries) Grants() (list []AuditorGrant, err error) {
	err = each(q, scanGrant, func(g AuditorGrant) error { list = append(list, g); return nil },
		"SELECT "+grantColumns+" FROM auditor_grants ORDER BY created_at, id")
	return list, err
}

// PutGrant writes a grant.
func (tx *Tx) PutGrant(g AuditorGrant) error {
	inUTC(&g.CreatedAt, &g.ExpiresAt, &g.OpenedAt, &g.EndedAt)
	session := g.Session
	if session == nil {
		session = []byte{}
	}
	return tx.write("auditor_grants", g.ID, g, `INSERT INTO auditor_grants (`+grantColumns+`) VALUES (?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET session = excluded.session, opened_at = excluded.opened_at, ended_at = excluded.ended_at`,
		g.ID, g.AuditorID, g.Kind, g.Hash, session, formatTime(g.CreatedAt), formatTime(g.ExpiresAt), formatTime(g.OpenedAt), formatTime(g.EndedAt))
}

// coveredAuditors calls hashed with the grants; names are covered by nothing.
func (q Queries) coveredAuditors(hashed func(table, key string, value any) error) error {
	return each(q, scanGrant, func(g AuditorGrant) error { return hashed("auditor_grants", g.ID, g) },
		"SELECT "+grantColumns+" FROM auditor_grants")
}
