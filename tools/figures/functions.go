package main

import (
	"go/ast"
	"go/token"
)

// function holds what is measured of one function.
type function struct {
	lines, cyclomatic, nesting, parameters int
}

// measure returns the sizes of a function, from its signature to its closing brace.
func measure(f goFile, decl *ast.FuncDecl) function {
	return function{
		lines:      f.span(declWithoutDoc{decl}),
		cyclomatic: cyclomatic(decl.Body),
		nesting:    nesting(decl.Body),
		parameters: decl.Type.Params.NumFields(),
	}
}

// declWithoutDoc begins where the signature does.
type declWithoutDoc struct{ *ast.FuncDecl }

func (d declWithoutDoc) Pos() token.Pos { return d.Type.Pos() }

// cyclomatic returns the number of ways through a body: one, and one more for each branch and each && or ||.
func cyclomatic(body *ast.BlockStmt) int {
	ways := 1

	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			ways++
		case *ast.CaseClause:
			if n.List != nil {
				ways++
			}
		case *ast.CommClause:
			if n.Comm != nil {
				ways++
			}
		case *ast.BinaryExpr:
			if n.Op == token.LAND || n.Op == token.LOR {
				ways++
			}
		}

		return true
	})

	return ways
}

// nesting returns how deep statements that branch or loop lie within each other. An else-if is no deeper than its if.
func nesting(body *ast.BlockStmt) int {
	var (
		depth, deepest int
		within         = []ast.Node{nil}
	)

	ast.Inspect(body, func(n ast.Node) bool {
		last := len(within) - 1

		switch {
		case n != nil:
			if deepens(n, within[last]) {
				depth++
			}

			within = append(within, n)
		default:
			if deepens(within[last], within[last-1]) {
				depth--
			}

			within = within[:last]
		}

		deepest = max(deepest, depth)

		return true
	})

	return deepest
}

// deepens reports whether what is in a statement lies one level deeper than the statement.
func deepens(n, parent ast.Node) bool {
	switch n.(type) {
	case *ast.IfStmt:
		p, ok := parent.(*ast.IfStmt)

		return !ok || p.Else != n
	case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
		return true
	}

	return false
}
