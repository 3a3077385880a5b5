package pci

// Merchant is what schemes, issuers and acquirers are told of the shop.
type Merchant struct {
	ID            string
	Sandbox       bool   // no money moves: real counterparties are never told of it
	Name          string // as it should appear on the statement, at most 25 characters (ISO 8583 DE 43)
	City          string // at most 13 characters
	Country       string // ISO 3166-1 alpha-2
	CountryCode   string // ISO 3166-1 numeric, 3 digits (EMV 3DS merchantCountryCode)
	MCC           string // ISO 18245, 4 digits
	AcquirerBIN   string // at most 11 digits
	AcquirerMID   string // card acceptor id, at most 15 characters (DE 42)
	TerminalID    string // at most 8 characters (DE 41)
	RequestorID   string // threeDSRequestorID
	RequestorName string
	RequestorURL  string
}
