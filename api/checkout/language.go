package checkout

import (
	"cmp"
	"embed"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Language is a language of the page.
type Language struct {
	Code      string // BCP 47
	Name      string // in itself
	Direction string // "ltr" or "rtl"
	texts     map[string]string
	scripted  string // those that the page's script shows, as a JSON object
}

//go:embed languages/*.json
var languageFiles embed.FS

// languages are in the order in which the page offers them; the first is the one for everybody else.
var languages = []Language{
	load("en", "English", "ltr"),
	load("ms", "Bahasa Melayu", "ltr"),
	load("zh", "中文", "ltr"),
	load("ar", "العربية", "rtl"),
}

// load reads a language's file, which is part of the program: a fault in it shows in every test.
func load(code, name, direction string) Language {
	raw, err := languageFiles.ReadFile("languages/" + code + ".json")
	if err != nil {
		panic(err)
	}
	l := Language{Code: code, Name: name, Direction: direction}
	if err := json.Unmarshal(raw, &l.texts); err != nil {
		panic("checkout: " + code + ".json: " + err.Error())
	}
	l.scripted = textsOf(l.texts)
	return l
}

// Asked returns the code of the language that the query's lang asks for, empty when it asks for none of ours.
func Asked(r *http.Request) string {
	if l, ok := find(r.URL.Query().Get("lang")); ok {
		return l.Code
	}
	return ""
}

// Choose returns the language of the query's lang, else the best one of Accept-Language, else English.
func Choose(r *http.Request) Language {
	if l, ok := find(r.URL.Query().Get("lang")); ok {
		return l
	}
	for _, tag := range accepted(r.Header.Get("Accept-Language")) {
		if l, ok := find(tag); ok {
			return l
		}
	}
	return languages[0]
}

// maxTags bounds the work that a header can ask for.
const maxTags = 32

// accepted returns the tags of an Accept-Language header (RFC 9110 section 12.5.4), the most wanted first.
func accepted(header string) []string {
	type wish struct {
		tag     string
		quality float64
	}
	var wishes []wish
	for part := range strings.SplitSeq(header, ",") {
		if len(wishes) == maxTags {
			break
		}
		tag, params, _ := strings.Cut(part, ";")
		quality := 1.0
		if q, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			parsed, err := strconv.ParseFloat(q, 64)
			if err != nil || !(parsed >= 0 && parsed <= 1) {
				continue
			}
			quality = parsed
		}
		if quality > 0 {
			wishes = append(wishes, wish{strings.TrimSpace(tag), quality})
		}
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return cmp.Compare(b.quality, a.quality) })
	tags := make([]string, len(wishes))
	for i, w := range wishes {
		tags[i] = w.tag
	}
	return tags
}

// find returns the language of a tag by its primary subtag: "zh-Hant-TW" is Chinese.
func find(tag string) (Language, bool) {
	primary, _, _ := strings.Cut(tag, "-")
	for _, l := range languages {
		if strings.EqualFold(l.Code, primary) {
			return l, true
		}
	}
	return Language{}, false
}
