package siem

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// OCSFVersion is that of the schema which events follow.
const OCSFVersion = "1.3.0"

// class is a class of events of OCSF.
type class struct {
	uid, category int
	name          string
	categoryName  string
	activities    map[activity]string
}

type activity int

// What is done in a class. OCSF counts anew in each.
const (
	created  activity = 1
	viewed   activity = 2
	updated  activity = 3
	deleted  activity = 4
	loggedOn activity = 1
	ended    activity = 2
	started  activity = 3
	stopped  activity = 4
	other    activity = 99
)

var crud = map[activity]string{created: "Create", viewed: "Read", updated: "Update", deleted: "Delete", other: "Other"}

// The classes that entries become.
var (
	authentication   = &class{3002, 3, "Authentication", "Identity & Access Management", map[activity]string{loggedOn: "Logon", ended: "Logoff"}}
	entityManagement = &class{3004, 3, "Entity Management", "Identity & Access Management", crud}
	lifecycle        = &class{6002, 6, "Application Lifecycle", "Application Activity", map[activity]string{started: "Start", stopped: "Stop"}}
	apiActivity      = &class{6003, 6, "API Activity", "Application Activity", crud}
)

// event is what a type of entries becomes.
type event struct {
	class *class
	does  activity
}

// events says what becomes of each type of entries. What does not stand here is an API activity of the kind other, so that
// no entry is lost; docs/entries.md has the same list, and a test holds both against the code.
var events = map[string]event{
	"appliance.started": {lifecycle, started}, "appliance.stopped": {lifecycle, stopped},
	"login.failed": {authentication, loggedOn}, "auditor.link_opened": {authentication, loggedOn}, "auditor.left": {authentication, ended},
	"auditor.link_created": {entityManagement, created}, "auditor.certificate_registered": {entityManagement, created},
	"auditor.ended": {entityManagement, deleted}, "auditor.forgotten": {entityManagement, deleted},
	"api_key.created": {entityManagement, created}, "api_key.revoked": {entityManagement, deleted}, "api_key.rotated": {entityManagement, updated},
	"merchant.created": {entityManagement, created}, "merchant.changed": {entityManagement, updated}, "recipient.registered": {entityManagement, updated},
	"log.opened": {entityManagement, created}, "ledger.checked": {entityManagement, viewed}, "backup.made": {entityManagement, viewed},
	"head.kept": {entityManagement, updated}, "head.accepted": {entityManagement, updated},
	"witness.gap_opened": {entityManagement, updated}, "witness.gap_closed": {entityManagement, updated},
	"payment.restored": {apiActivity, updated}, "payment.resolved_captured": {apiActivity, updated}, "payment.resolved_failed": {apiActivity, updated},
	"import.opened": {entityManagement, created}, "import.closed": {entityManagement, deleted},
	"key.created": {entityManagement, created}, "key.listed": {entityManagement, created}, "key.announced": {entityManagement, updated},
	"key.retired": {entityManagement, updated}, "key.destroyed": {entityManagement, deleted}, "key.backed_up": {entityManagement, viewed},
	"key.restored": {entityManagement, created}, "key.resealed": {entityManagement, updated}, "key.retirement_started": {entityManagement, updated},
	"key.tokens_replaced": {entityManagement, updated}, "key.retirement_counted": {entityManagement, updated},
	"ceremony.started": {entityManagement, created}, "ceremony.resumed": {entityManagement, updated}, "ceremony.step": {entityManagement, updated},
	"ceremony.finished": {entityManagement, updated},
	"audit.viewed":      {apiActivity, viewed}, "audit.exported": {apiActivity, viewed}, "payment.created": {apiActivity, created},
	"token.issued": {apiActivity, created}, "tokens.issued": {apiActivity, created}, "tokens.renewed": {apiActivity, updated},
	"tokens.replaced": {apiActivity, updated}, "tokens.deactivated": {apiActivity, deleted}, "token.deactivated": {apiActivity, deleted},
	"token.detokenized": {apiActivity, viewed}, "token.bound_reached": {apiActivity, created}, "tokens.changes_acknowledged": {apiActivity, updated},
	"webhook.delivered": {apiActivity, other}, "webhook.failed": {apiActivity, other}, "webhook.switched_off": {apiActivity, updated},
	"webhook.redelivery_asked": {apiActivity, updated}, "webhook_endpoint.created": {entityManagement, created},
	"webhook_endpoint.changed": {entityManagement, updated}, "webhook_endpoint.secret_rotated": {entityManagement, updated},
	"webhook_endpoint.deleted": {entityManagement, deleted},
	"payment.card_entered":     {apiActivity, updated}, "payment.card_lost": {apiActivity, updated}, "payment.challenged": {apiActivity, updated},
	"payment.authorizing": {apiActivity, updated}, "payment.rerouted": {apiActivity, updated}, "payment.captured": {apiActivity, updated},
	"payment.soft_declined": {apiActivity, updated}, "payment.declined": {apiActivity, updated},
	"payment.expired": {apiActivity, updated}, "payment.indeterminate": {apiActivity, updated}, "payment.not_sent": {apiActivity, updated},
	"payment.reversed": {apiActivity, updated}, "payment.authorized": {apiActivity, updated}, "payment.capture_requested": {apiActivity, updated},
	"payment.capture_refused": {apiActivity, updated}, "payment.void_requested": {apiActivity, updated}, "payment.voided": {apiActivity, updated},
	"payment.refund_requested": {apiActivity, updated}, "payment.partially_refunded": {apiActivity, updated}, "payment.refunded": {apiActivity, updated},
	"settlement.requested": {entityManagement, viewed}, "settlement.balanced": {entityManagement, viewed},
	"settlement.out_of_balance": {entityManagement, viewed},
	"payment.withdrawn":         {apiActivity, updated},
	"customer.forgotten":        {entityManagement, deleted}, "retention.applied": {entityManagement, deleted},
	"payment.card_chosen": {apiActivity, updated}, "payment.failed": {apiActivity, updated},
	"payment.refund_indeterminate": {apiActivity, updated}, "payment.refund_failed": {apiActivity, updated},
}

// Class names the class and the activity that a type of entries becomes, as in "API Activity: Read".
func Class(kind string) string {
	ev := eventOf(kind)
	return ev.class.name + ": " + ev.class.activities[ev.does]
}

func eventOf(kind string) event {
	if ev, ok := events[kind]; ok {
		return ev
	}
	return event{apiActivity, other}
}

// severity of OCSF.
const (
	severityInformational = 1
	severityLow           = 2
)

// object is a JSON object under construction.
type object map[string]any

func appendOCSF(b []byte, e entry) ([]byte, error) {
	ev := eventOf(e.Type)
	leaf := base64.StdEncoding.EncodeToString(e.Leaf)
	o := object{
		"activity_id": int(ev.does), "activity_name": ev.class.activities[ev.does],
		"category_uid": ev.class.category, "category_name": ev.class.categoryName,
		"class_uid": ev.class.uid, "class_name": ev.class.name, "type_uid": ev.class.uid*100 + int(ev.does),
		"type_name":   ev.class.name + ": " + ev.class.activities[ev.does],
		"severity_id": severityInformational, "severity": "Informational", "status_id": 1, "status": "Success",
		"time": e.time.UnixMilli(), "message": e.Type,
		"metadata": object{"version": OCSFVersion, "product": object{"name": "FINPay appliance", "vendor_name": "FINPay"}, "event_code": e.Type,
			"log_name": e.Log, "sequence": e.Index, "uid": fmt.Sprintf("%s#%d", e.Log, e.Index), "original_time": e.Time},
		"raw_data": string(e.Entry),
		"unmapped": object{"index": e.Index, "leaf": leaf, "node": e.Node, "data": e.Data},
	}
	if e.failed() {
		o["severity_id"], o["severity"], o["status_id"], o["status"] = severityLow, "Low", 2, "Failure"
	}
	e.describe(o, ev)
	text, err := json.Marshal(o)
	if err != nil {
		return b, fmt.Errorf("siem: entry %d: %w", e.Index, err)
	}
	return append(append(b, text...), '\n'), nil
}

// describe adds what the class wants of who did what to what.
func (e entry) describe(o object, ev event) {
	actor := object{"user": object{"uid": orUnknown(e.Actor)}}
	switch ev.class {
	case authentication:
		o["user"] = object{"uid": orUnknown(strings.TrimPrefix(e.who(), "key:"))}
		o["service"] = object{"name": "FINPay appliance"}
		o["src_endpoint"] = e.endpoint()
	case entityManagement:
		o["actor"] = actor
		o["entity"] = object{"uid": orUnknown(e.About), "name": orUnknown(e.About), "type": family(e.Type)}
	case lifecycle:
		o["app"] = object{"name": "FINPay appliance", "vendor_name": "FINPay", "version": orUnknown(e.text("version"))}
	default:
		o["actor"] = actor
		o["api"] = object{"operation": e.Type, "service": object{"name": "FINPay appliance"}}
		o["src_endpoint"] = e.endpoint()
		o["resources"] = []object{{"uid": orUnknown(e.About), "type": family(e.Type)}}
	}
}

// who is the one who logs on or tries to: the key that was named, where a login failed.
func (e entry) who() string {
	if e.failed() {
		return e.About
	}
	return e.Actor
}

// endpoint is where a call came from: an address, or the name that the entry has in its place.
func (e entry) endpoint() object {
	if ip, ok := e.address(); ok {
		return object{"ip": ip}
	}
	return object{"name": orUnknown(e.Origin)}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
