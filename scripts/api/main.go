// Command api prints what the repository's packages export, a declaration a line:
//
//	go run ./scripts/api            the library's: what docs/api.txt has
//	go run ./scripts/api -outside   what is exported outside the library, by package; its end is the number
//
// The text is made from the source, as Linux has it on amd64 with cgo, in a form that does not change with the
// declarations' order, comments or layout. Its test holds docs/api.txt against the code.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

const root = "github.com/unknot/unknot"

// library are the folders in which a package is the library's, or promised as the library is (docs/stability.md).
var library = []string{"engine", "ring", "confine", "bench/compare"}

func main() {
	outside := flag.Bool("outside", false, "what is exported outside the library, instead")
	flag.Parse()
	if err := run(*outside); err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

func run(outside bool) error {
	pkgs, err := packages(outside)
	if err != nil {
		return err
	}
	lines := 0
	for _, p := range pkgs {
		decls, err := p.exported(amd64)
		if err != nil {
			return err
		}
		for _, d := range decls {
			if outside && strings.HasPrefix(d, "method ") || outside && strings.HasPrefix(d, "field ") {
				continue // counted with their type
			}
			fmt.Printf("%s: %s\n", strings.TrimPrefix(p.path, root+"/"), d)
			lines++
		}
	}
	if outside {
		fmt.Printf("%d declarations in %d packages\n", lines, len(pkgs))
	}
	return nil
}

// A pkg is a package of the repository.
type pkg struct{ path, dir string }

// packages are the packages that somebody else can import, of the library or of all else.
func packages(outside bool) ([]pkg, error) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Dir}} {{.Name}}", "work").Output()
	if err != nil {
		return nil, fmt.Errorf("go list work: %w", err)
	}
	var pkgs []pkg
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		rest := strings.TrimPrefix(f[0], root+"/")
		parts := strings.Split(rest, "/")
		if f[2] == "main" || slices.Contains(parts, "internal") || slices.Contains([]string{"scripts", "examples"}, parts[0]) ||
			slices.ContainsFunc(library, func(l string) bool { return rest == l || strings.HasPrefix(rest, l+"/") }) == outside {
			continue
		}
		pkgs = append(pkgs, pkg{f[0], f[1]})
	}
	return pkgs, nil
}

// A platform is one of those that a package is built for.
type platform struct {
	arch string
	cgo  bool
}

var amd64 = platform{"amd64", true}

// exported are the package's exported declarations, sorted.
func (p pkg) exported(on platform) ([]string, error) {
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = "linux", on.arch, on.cgo
	b, err := ctx.ImportDir(p.dir, 0)
	if err != nil {
		if _, none := err.(*build.NoGoError); none {
			return nil, nil
		}
		return nil, err
	}
	fset := token.NewFileSet()
	seen := map[string]bool{}
	for _, name := range slices.Concat(b.GoFiles, b.CgoFiles) {
		f, err := parser.ParseFile(fset, filepath.Join(p.dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			for _, line := range declared(fset, d) {
				seen[line] = true
			}
		}
	}
	var all []string
	for line := range seen {
		all = append(all, line)
	}
	sort.Strings(all)
	return all, nil
}

// declared are the lines of one declaration.
func declared(fset *token.FileSet, d ast.Decl) (lines []string) {
	add := func(kind string, what ...any) {
		s := kind
		for _, w := range what {
			switch w := w.(type) {
			case string:
				s += w
			case ast.Node:
				s += text(fset, w)
			}
		}
		lines = append(lines, s)
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() {
			return nil
		}
		signature := strings.TrimPrefix(text(fset, unnamed(d.Type)), "func")
		if d.Recv == nil {
			add("func ", d.Name.Name, signature)
			return lines
		}
		recv := text(fset, d.Recv.List[0].Type)
		if base := strings.TrimLeft(recv, "*"); ast.IsExported(base) {
			add("method (", recv, ") ", d.Name.Name, signature)
		}
	case *ast.GenDecl:
		iota := "" // the type of the constant before, which an implicit repetition has
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				typ := ""
				if s.Type != nil {
					typ = " " + text(fset, s.Type)
				} else if d.Tok == token.CONST && len(s.Values) == 0 {
					typ = iota
				}
				iota = typ
				for _, n := range s.Names {
					if n.IsExported() {
						add(d.Tok.String()+" ", n.Name, typ)
					}
				}
			case *ast.TypeSpec:
				if !s.Name.IsExported() {
					continue
				}
				name := s.Name.Name
				if s.TypeParams != nil {
					var params []string
					for _, f := range s.TypeParams.List {
						for _, n := range f.Names {
							params = append(params, n.Name+" "+text(fset, f.Type))
						}
					}
					name += "[" + strings.Join(params, ", ") + "]"
				}
				if s.Assign.IsValid() {
					name += " ="
				}
				switch t := s.Type.(type) {
				case *ast.StructType:
					add("type ", name, " struct")
					for _, f := range t.Fields.List {
						if len(f.Names) == 0 {
							add("field ", s.Name.Name, " embeds ", f.Type)
						}
						for _, n := range f.Names {
							if n.IsExported() {
								add("field ", s.Name.Name, ".", n.Name, " ", f.Type)
							}
						}
					}
				case *ast.InterfaceType:
					add("type ", name, " interface")
					for _, f := range t.Methods.List {
						if len(f.Names) == 0 {
							add("field ", s.Name.Name, " embeds ", f.Type)
						}
						for _, n := range f.Names {
							add("method (", s.Name.Name, ") ", n.Name, strings.TrimPrefix(text(fset, unnamed(f.Type)), "func"))
						}
					}
				default:
					add("type ", name, " ", s.Type)
				}
			}
		}
	}
	return lines
}

// unnamed is a function's type without its parameters' names, which are not part of what callers depend on.
func unnamed(e ast.Expr) ast.Expr {
	f, ok := e.(*ast.FuncType)
	if !ok {
		return e
	}
	bare := func(l *ast.FieldList) *ast.FieldList {
		if l == nil {
			return nil
		}
		var out ast.FieldList
		for _, p := range l.List {
			for range max(1, len(p.Names)) {
				out.List = append(out.List, &ast.Field{Type: p.Type})
			}
		}
		return &out
	}
	return &ast.FuncType{TypeParams: f.TypeParams, Params: bare(f.Params), Results: bare(f.Results)}
}

// text prints a node on one line.
func text(fset *token.FileSet, n ast.Node) string {
	var b bytes.Buffer
	if err := (&printer.Config{Mode: printer.RawFormat}).Fprint(&b, fset, n); err != nil {
		panic(err) // a buffer takes all, and the parser made the node
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
