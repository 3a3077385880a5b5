package pci_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const (
	pciPath      = "github.com/finterra/finpay/pci"
	internalPath = pciPath + "/internal"
)

// Go lets nobody outside pci import pci/internal, but type inference carries a value out of any exported signature
// that mentions its type. So none may.
func TestNoExportedSignatureMentionsCardDigits(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedDeps | packages.NeedSyntax | packages.NeedTypesInfo,
	}, pciPath+"/...")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			t.Fatalf("%s: %v", p.PkgPath, p.Errors)
		}
		if inside(p.PkgPath, internalPath) {
			continue
		}
		checked++
		for _, leak := range leaks(p.Types) {
			t.Errorf("%s: %s", p.PkgPath, leak)
		}
	}
	if checked < 5 {
		t.Errorf("only %d packages were checked", checked)
	}
}

// leaks lists the paths by which code outside could reach a type of pci/internal from an exported name of pkg.
func leaks(pkg *types.Package) (found []string) {
	for _, name := range pkg.Scope().Names() {
		if object := pkg.Scope().Lookup(name); object.Exported() {
			w := walker{path: []string{name}, seen: make(map[types.Type]bool)}
			w.visit(object.Type())
			found = append(found, w.found...)
		}
	}
	slices.Sort(found)
	return found
}

// walker goes from exported names along everything that a caller outside can reach: fields, methods, parameters,
// results, elements, constraints, type arguments.
type walker struct {
	path  []string
	seen  map[types.Type]bool
	found []string
}

func (w *walker) at(step string, visit func()) {
	w.path = append(w.path, step)
	visit()
	w.path = w.path[:len(w.path)-1]
}

func (w *walker) visit(t types.Type) {
	if w.seen[t] {
		return
	}
	w.seen[t] = true
	switch t := t.(type) {
	case *types.Alias:
		w.declared(t.Obj(), t.TypeParams(), t.TypeArgs())
		w.visit(t.Rhs())
	case *types.Named:
		w.declared(t.Obj(), t.TypeParams(), t.TypeArgs())
		if pkg := t.Obj().Pkg(); pkg == nil || !inside(pkg.Path(), pciPath) || inside(pkg.Path(), internalPath) {
			return // of another module, or found already
		}
		w.visit(t.Underlying())
		w.methods(t)
	case *types.Tuple:
		for v := range t.Variables() {
			w.visit(v.Type())
		}
	case *types.TypeParam:
		w.at("constraint", func() { w.visit(t.Constraint()) })
	case *types.Struct:
		for field := range t.Fields() {
			// An unexported field that is embedded promotes its own: those are exported.
			if field.Exported() {
				w.at(field.Name(), func() { w.visit(field.Type()) })
			} else if field.Embedded() {
				w.at(field.Name(), func() { w.promoted(field.Type()) })
			}
		}
	case *types.Interface:
		for method := range t.Methods() {
			if method.Exported() {
				w.at(method.Name(), func() { w.visit(method.Type()) })
			}
		}
		for embedded := range t.EmbeddedTypes() {
			w.visit(embedded)
		}
	case *types.Union:
		for term := range t.Terms() {
			w.visit(term.Type())
		}
	case *types.Signature:
		for p := range t.TypeParams().TypeParams() {
			w.visit(p)
		}
		w.at("parameter", func() { w.visit(t.Params()) })
		w.at("result", func() { w.visit(t.Results()) })
	case *types.Map:
		w.visit(t.Key())
		w.visit(t.Elem())
	case interface{ Elem() types.Type }: // pointer, slice, array, channel
		w.visit(t.Elem())
	}
}

// declared reports a type of pci/internal, and visits type parameters and arguments.
func (w *walker) declared(name *types.TypeName, parameters *types.TypeParamList, arguments *types.TypeList) {
	if name.Pkg() != nil && inside(name.Pkg().Path(), internalPath) {
		w.found = append(w.found, fmt.Sprintf("%s reaches %s.%s", strings.Join(w.path, " > "), name.Pkg().Name(), name.Name()))
	}
	for p := range parameters.TypeParams() {
		w.visit(p)
	}
	for a := range arguments.Types() {
		w.at("type argument", func() { w.visit(a) })
	}
}

// methods visits the exported methods of T and *T, promoted ones included.
func (w *walker) methods(t types.Type) {
	if types.IsInterface(t) {
		return // visited as its underlying type
	}
	for selection := range types.NewMethodSet(types.NewPointer(t)).Methods() {
		if method := selection.Obj(); method.Exported() {
			w.at(method.Name(), func() { w.visit(method.Type()) })
		}
	}
}

// promoted visits what an embedded field of an unexported name lends to its struct: exported fields. Its methods are
// in the struct's own method set.
func (w *walker) promoted(t types.Type) {
	if pointer, ok := t.Underlying().(*types.Pointer); ok {
		t = pointer.Elem()
	}
	if s, ok := t.Underlying().(*types.Struct); ok {
		w.visit(s)
	}
}

func inside(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// The check above is worth nothing if it finds nothing: here is one leak of each kind.
func TestLeaksAreFound(t *testing.T) {
	const bad = `package bad

import "github.com/finterra/finpay/pci/internal/pan"

type hidden struct { Digits pan.Card }
type lender struct{}
func (lender) Promoted(*pan.Card) {}
type generic[T any] struct { V T }
type loop struct { Next *loop; Cards []hidden2 }
type hidden2 struct { C map[string]chan *pan.Card }

type Alias = pan.Card
type AliasOfSlice = []*pan.Card
type Field struct { Card *pan.Card }
type EmbeddedStruct struct { hidden }
type EmbeddedMethods struct { *lender }
type Embedded struct { *pan.Card }
type Method struct{}
func (*Method) Use() [2]pan.Card { return [2]pan.Card{} }
type Interface interface { Lend(func(*pan.Card) error) }
type EmbeddingInterface interface { internal }
type internal interface { Lend(*pan.Card) }
type Constraint interface { ~int | pan.Card }
type Parameter[T interface{ Card() *pan.Card }] struct{ v T }
type Argument struct { G generic[*pan.Card] }
type Recursive struct { L *loop }
var Variable *pan.Card
var Through = func() hidden2 { return hidden2{} }
func Result() (int, *pan.Card) { return 0, nil }
func Variadic(...pan.Card) {}
func Generic[T *pan.Card]() {}
func Anonymous(struct{ C *pan.Card }) {}
func Unexported() loop { return loop{} }

type Good struct { card *pan.Card; use func(*pan.Card) }
func (g *Good) lend(*pan.Card) {}
func Fine(g Good) error { g.lend(g.card); g.use(nil); return nil }
type fine struct { lender }
var _ = fine{}
`
	got := map[string]bool{}
	for _, leak := range leaks(compile(t, bad)) {
		got[strings.Fields(leak)[0]] = true
	}
	for _, want := range []string{
		"Alias", "AliasOfSlice", "Field", "EmbeddedStruct", "EmbeddedMethods", "Embedded", "Method", "Interface",
		"EmbeddingInterface", "Constraint", "Parameter", "Argument", "Recursive", "Variable", "Through", "Result",
		"Variadic", "Generic", "Anonymous", "Unexported",
	} {
		if !got[want] {
			t.Errorf("the leak of %s was not found", want)
		}
		delete(got, want)
	}
	for name := range got {
		t.Errorf("%s is no leak", name)
	}
}

// compile type-checks a package of pci that lies beside a pci/internal/pan with a Card.
func compile(t *testing.T, source string) *types.Package {
	t.Helper()
	digits := check(t, internalPath+"/pan", "package pan\ntype Card struct { Digits []byte }", importer.Default())
	return check(t, pciPath+"/bad", source, importing{internalPath + "/pan": digits})
}

func check(t *testing.T, path, source string, from types.Importer) *types.Package {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := (&types.Config{Importer: from}).Check(path, files, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pkg
}

type importing map[string]*types.Package

func (i importing) Import(path string) (*types.Package, error) { return i[path], nil }
