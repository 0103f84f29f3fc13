package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
)

// docs counts what is exported and documented, and how the comments speak.
type docs struct {
	exported, documented           int
	fields, documentedFields       int
	words                          []int
	returns, gives, reports, tells int
	variables, inits               int
	interfaces                     []int // methods each
}

var (
	saysReturns = regexp.MustCompile(`^\w+ returns\b`)
	saysGives   = regexp.MustCompile(`^\w+ gives\b`)
	saysReports = regexp.MustCompile(`^\w+ (?:reports|returns) whether\b`)
	saysTells   = regexp.MustCompile(`^\w+ tells\b`)
)

// read adds what a file declares.
func (d *docs) read(file *ast.File, exportedTypes map[string]bool) {
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			d.listen(decl.Doc)

			if decl.Recv == nil && decl.Name.Name == "init" {
				d.inits++
			}

			if decl.Name.IsExported() && (decl.Recv == nil || exportedTypes[receiver(decl)]) {
				d.count(decl.Doc)
			}
		case *ast.GenDecl:
			d.listen(decl.Doc)

			for _, spec := range decl.Specs {
				d.spec(decl, spec)
			}
		}
	}
}

func (d *docs) spec(decl *ast.GenDecl, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Name.IsExported() {
			d.count(first(spec.Doc, decl.Doc, spec.Comment))
		}

		d.members(spec)
	case *ast.ValueSpec:
		doc := first(spec.Doc, decl.Doc, spec.Comment)
		for _, name := range spec.Names {
			if decl.Tok == token.VAR && name.Name != "_" {
				d.variables++
			}

			if name.IsExported() {
				d.count(doc)
			}
		}
	}
}

// members reads what a type holds: fields of a struct, methods of an interface.
func (d *docs) members(spec *ast.TypeSpec) {
	switch t := spec.Type.(type) {
	case *ast.InterfaceType:
		methods := 0

		for _, m := range t.Methods.List {
			methods += max(1, len(m.Names)) // what is embedded counts as one
		}

		d.interfaces = append(d.interfaces, methods)
	case *ast.StructType:
		for _, field := range t.Fields.List {
			for _, name := range field.Names {
				if !spec.Name.IsExported() || !name.IsExported() {
					continue
				}

				d.fields++

				if first(field.Doc, field.Comment) != nil {
					d.documentedFields++
				}
			}
		}
	}
}

func (d *docs) count(doc *ast.CommentGroup) {
	d.exported++

	if doc != nil {
		d.documented++
	}
}

// listen takes in how a comment speaks.
func (d *docs) listen(doc *ast.CommentGroup) {
	text := doc.Text()
	if text == "" {
		return
	}

	d.words = append(d.words, len(strings.Fields(text)))

	for pattern, counter := range map[*regexp.Regexp]*int{saysReturns: &d.returns, saysGives: &d.gives, saysReports: &d.reports, saysTells: &d.tells} {
		if pattern.MatchString(text) {
			*counter++
		}
	}
}

// exportedTypes returns the names of all types of a package that others can see.
func exportedTypes(files []goFile) map[string]bool {
	names := map[string]bool{}

	for _, f := range files {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if t, ok := n.(*ast.TypeSpec); ok && t.Name.IsExported() {
				names[t.Name.Name] = true
			}

			_, function := n.(*ast.FuncDecl)

			return !function
		})
	}

	return names
}

// receiver returns the name of the type that a method belongs to.
func receiver(decl *ast.FuncDecl) string {
	t := decl.Recv.List[0].Type

	for {
		switch inner := t.(type) {
		case *ast.StarExpr:
			t = inner.X
		case *ast.IndexExpr:
			t = inner.X
		case *ast.IndexListExpr:
			t = inner.X
		case *ast.Ident:
			return inner.Name
		default:
			return ""
		}
	}
}

func first(comments ...*ast.CommentGroup) *ast.CommentGroup {
	for _, c := range comments {
		if c != nil {
			return c
		}
	}

	return nil
}
