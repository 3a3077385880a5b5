package threeds

import (
	"strings"
	"unique"

	"github.com/finterra/finpay/pci/internal/pan"
)

// dsVersions is what the directory server speaks: first and last version in 2.2.0, a list in 2.3.1. A range may have its own.
type dsVersions struct {
	DSStartProtocolVersion string   `json:"dsStartProtocolVersion"`
	DSEndProtocolVersion   string   `json:"dsEndProtocolVersion"`
	DSProtocolVersions     []string `json:"dsProtocolVersions"`
}

// set returns otherwise where nothing is said.
func (d *dsVersions) set(otherwise versionSet) versionSet {
	switch {
	case len(d.DSProtocolVersions) > 0:
		return setOf(d.DSProtocolVersions...)
	case d.DSStartProtocolVersion != "" || d.DSEndProtocolVersion != "":
		return setBetween(d.DSStartProtocolVersion, d.DSEndProtocolVersion)
	}
	return otherwise
}

func (d *dsVersions) check(f *elementCheck) {
	f.allow("dsStartProtocolVersion", d.DSStartProtocolVersion, isVersion(d.DSStartProtocolVersion))
	f.allow("dsEndProtocolVersion", d.DSEndProtocolVersion, isVersion(d.DSEndProtocolVersion))
	for _, v := range d.DSProtocolVersions {
		f.want("dsProtocolVersions", v, isVersion(v))
	}
}

// cardRangeData is table A.6. In 2.2.0 it is one range with the first and the last version that its ACS speaks; in 2.3.1 it is
// a list of ranges with a list of versions.
type cardRangeData struct {
	rangeBounds
	Ranges    []rangeBounds `json:"ranges"`
	ActionInd string        `json:"actionInd"`

	ACSStartProtocolVersion string               `json:"acsStartProtocolVersion"`
	ACSEndProtocolVersion   string               `json:"acsEndProtocolVersion"`
	ThreeDSMethodURL        string               `json:"threeDSMethodURL"`
	ACSProtocolVersions     []acsProtocolVersion `json:"acsProtocolVersions"`
	dsVersions
}

type rangeBounds struct {
	StartRange string `json:"startRange"`
	EndRange   string `json:"endRange"`
}

// acsProtocolVersion is an element of acsProtocolVersions. What else 2.3.1 has there, acsInfoInd and supportedMsgExt, is not used.
type acsProtocolVersion struct {
	Version          string `json:"version"`
	ThreeDSMethodURL string `json:"threeDSMethodURL"`
}

// parse returns the ranges of an element; all speak the same versions.
func (d *cardRangeData) parse(ours, ds versionSet) ([]cardRange, error) {
	if len(d.Ranges) == 0 {
		d.Ranges = []rangeBounds{d.rangeBounds}
	}
	var f elementCheck
	f.allow("actionInd", d.ActionInd, d.ActionInd == "A" || d.ActionInd == "M" || d.ActionInd == "D")
	acs := d.acsVersions(&f)
	d.dsVersions.check(&f)
	ranges := make([]cardRange, len(d.Ranges))
	for i, b := range d.Ranges {
		b.check(&f)
		if f.fault() == nil {
			ranges[i] = b.cardRange()
		}
	}
	if err := f.fault(); err != nil {
		return nil, err
	}
	v := (ours & acs & d.set(ds)).newest()
	method := unique.Make(d.methodOf(v)).Value() // an ACS has thousands of ranges
	for i := range ranges {
		ranges[i].version, ranges[i].method = v, method
	}
	return ranges, nil
}

// acsVersions are those that the issuers' ACS speaks.
func (d *cardRangeData) acsVersions(f *elementCheck) (set versionSet) {
	if len(d.ACSProtocolVersions) == 0 {
		f.want("acsStartProtocolVersion", d.ACSStartProtocolVersion, isVersion(d.ACSStartProtocolVersion))
		f.want("acsEndProtocolVersion", d.ACSEndProtocolVersion, isVersion(d.ACSEndProtocolVersion))
		f.allow("threeDSMethodURL", d.ThreeDSMethodURL, len(d.ThreeDSMethodURL) <= 256)
		return setBetween(d.ACSStartProtocolVersion, d.ACSEndProtocolVersion)
	}
	for _, v := range d.ACSProtocolVersions {
		f.want("acsProtocolVersions.version", v.Version, isVersion(v.Version))
		f.allow("acsProtocolVersions.threeDSMethodURL", v.ThreeDSMethodURL, len(v.ThreeDSMethodURL) <= 256)
		set |= setOf(v.Version)
	}
	return set
}

// methodOf returns the 3DS Method URL for a version: in 2.3.1 each has its own.
func (d *cardRangeData) methodOf(v version) string {
	for _, a := range d.ACSProtocolVersions {
		if a.Version == v.String() {
			return a.ThreeDSMethodURL
		}
	}
	if len(d.ACSProtocolVersions) > 0 {
		return ""
	}
	return d.ThreeDSMethodURL
}

func (b rangeBounds) check(f *elementCheck) {
	f.want("startRange", b.StartRange, isDigits(b.StartRange, 13, pan.MaxLength))
	f.want("endRange", b.EndRange, isDigits(b.EndRange, 13, pan.MaxLength) && len(b.EndRange) == len(b.StartRange) && b.StartRange <= b.EndRange)
}

func (b rangeBounds) cardRange() (r cardRange) {
	copy(r.start[:], b.StartRange+strings.Repeat("0", pan.MaxLength-len(b.StartRange)))
	copy(r.end[:], b.EndRange+strings.Repeat("9", pan.MaxLength-len(b.EndRange)))
	return r
}
